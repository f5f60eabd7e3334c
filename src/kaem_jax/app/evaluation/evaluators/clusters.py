"""What the clusters of a clustered prior represent: p(c | x), agreement with labels, and samples of each cluster."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import Draws
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.model import Params
from kaem_jax.priors.clustered import ClusteredPrior

_BATCH = 100  # data whose clusters are inferred at once
_DATA_OF_EACH = 5  # data for each cluster; with fewer, a used cluster may have none by chance
_NUM_SHOWN, _NUM_OF_EACH = 40, 12


class Clusters(Evaluator):
    """What clusters represent."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        return {"clusters": evaluate(on.keys.clusters, on.run, on.x, on.labels, on.draws[0])}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        if numbers["num_data"] < _DATA_OF_EACH * numbers["clusters"]:
            return "too few data to tell how many clusters are used: their number comes out too low"
        if numbers["effective_number"] < 0.5 * numbers["clusters"]:
            return "more than half of the clusters are hardly used: fewer would be enough"
        return ""


def evaluate(key: Array, run: Run, x: Array, labels: np.ndarray | None, draws: Draws | None = None) -> dict[str, Any]:
    """How many clusters the data x [B, *data_shape] use, and how they agree with labels, int [B], if there are any.

    `draws`: those of the first data, if there are any already.
    """
    if not isinstance(run.model.prior, ClusteredPrior):
        return {"reason": f"a {type(run.model.prior).__name__} has no clusters"}

    def of_draws(draws: Draws) -> Array:
        return _mean_responsibilities(run.model.prior, run.params["prior"], draws)

    def of_data(key: Array, x: Array) -> Array:
        return of_draws(run.posterior.draw(key, run.model, run.params, x))

    first = [] if draws is None else [np.asarray(of_draws(draws))]
    size = len(first[0]) if first else _BATCH  # one program serves all
    found = np.concatenate([*first, *in_batches(of_data, key, x[len(first) * size :], size)])
    share = found.mean(axis=0)
    result: dict[str, Any] = {
        "effective_number": float(np.exp(-np.sum(share * np.log(np.maximum(share, 1e-30))))),
        "clusters": found.shape[1],
        "num_data": len(x),
    }
    return result if labels is None else result | agreement(found, labels)


@functools.partial(jax.jit, static_argnames="prior")
def _mean_responsibilities(prior: ClusteredPrior, params: Params, draws: Draws) -> Array:
    """P(c | x_b) = E[p(c | z) | x_b] over posterior draws: [B, C]."""
    return constrain(draws.mean(jnp.exp(prior.bind(params).log_responsibilities(draws.z))))


def agreement(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well argmax of `probabilities` [B, C] agrees with labels [B].

    Returns `adjusted_mutual_information` (Vinh et al., 2010; 0 by chance, 1 if clusters are classes), and `accuracy` if
    each cluster is named after its most frequent label.
    """
    from sklearn.metrics import adjusted_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    cluster = np.argmax(probabilities, axis=1)
    return {
        "adjusted_mutual_information": float(adjusted_mutual_info_score(labels, cluster)),
        "accuracy": float(contingency_matrix(labels, cluster).max(axis=0).sum() / len(labels)),
    }


def heaviest_clusters(prior: ClusteredPrior, params: Params, num: int) -> list[tuple[int, float]]:
    """At most `num` clusters with their shares, the heaviest first; `params` are the prior's."""
    shares = np.exp(np.asarray(prior.bind(params).table.log_proportions))
    return [(int(c), float(shares[c])) for c in np.argsort(-shares, kind="stable")[:num]]


def samples_of_clusters(key: Array, run: Run) -> tuple[np.ndarray, list[str]]:
    """Samples of the heaviest clusters, [R, K, *data_shape], and the clusters' names."""
    prior = run.model.prior.bind(run.params["prior"])
    heaviest = heaviest_clusters(prior.prior, run.params["prior"], _NUM_SHOWN)
    latents = [prior.sample_of_cluster(jax.random.fold_in(key, c), c, (_NUM_OF_EACH,)) for c, _ in heaviest]
    images = np.stack([np.asarray(run.model.decode(run.params, z, prior)) for z in latents])
    return images, [f"{c}\n{share:.1%}" for c, share in heaviest]
