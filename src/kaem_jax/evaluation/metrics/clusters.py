"""What the clusters of a clustered prior stand for: p(c | x), and its agreement with labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior

__all__ = ["agreement", "cluster_probabilities", "heaviest_clusters"]


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def cluster_probabilities(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> Array:
    """P(c | x_b) = E[p(c | z) | x_b] over posterior draws, for x [B, *data_shape]: [B, C]."""
    prior = model.prior
    assert isinstance(prior, ClusteredPrior), "no other prior has clusters"
    draws = posterior.draw(key, model, params, constrain(x, "data"))
    return constrain(draws.mean(jnp.exp(prior.log_responsibilities(params["prior"], draws.z))))


def heaviest_clusters(prior: ClusteredPrior, params: Params, num: int) -> list[tuple[int, float]]:
    """At most `num` clusters with their shares, the heaviest first; `params` are the prior's."""
    shares = np.exp(np.asarray(prior.log_proportions(params)))
    return [(int(c), float(shares[c])) for c in np.argsort(-shares, kind="stable")[:num]]


def agreement(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well the most probable clusters [B, C] agree with labels [B].

    Returns:
      `adjusted_mutual_information` (Vinh et al., 2010; 0 by chance, 1 if clusters are classes), and `accuracy` if each
      cluster is named after the label that is most frequent in it among these data.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    cluster = np.argmax(probabilities, axis=1)
    classes, index = np.unique(labels, return_inverse=True)
    counts = np.zeros((probabilities.shape[1], len(classes)))
    np.add.at(counts, (cluster, index), 1)
    return {
        "adjusted_mutual_information": float(adjusted_mutual_info_score(labels, cluster)),
        "accuracy": float(np.sum(np.max(counts, axis=1)) / len(labels)),
    }
