"""What a trained model says of one datum: its posterior, its reconstruction, log p(x), its cluster."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.log_prob import log_prob, of_observed
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.inference.samplers.resampling import systematic
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.runs.run import Run

__all__ = ["NUM_PROPOSALS", "Reading", "read_posterior", "read_score"]

NUM_PROPOSALS = 1000

_score = jax.jit(log_prob, static_argnums=1, static_argnames=("proposal", "num_samples", "chunk_size", "may_miss"))


class Reading(NamedTuple):
    """The posterior of one datum.

    Attributes:
      draws: [S, *event_shape], equally weighted.
      reconstruction: [*data_shape], the posterior mean of E[x | z].
      clusters: [C] p(c | x) of a clustered prior, else None.
    """

    draws: Array
    reconstruction: Array
    clusters: Array | None


def read_posterior(key: Array, run: Run, x: np.ndarray, num: int) -> Reading:
    """The posterior of x [*data_shape], NaN where it is missing, by the run's sampler of evaluation; `num` draws."""
    model, posterior = run.model, run.posterior
    if np.isnan(x).any():
        model = of_observed(run.model)
        if isinstance(run.config.evaluation.proposal, EncoderProposal):
            posterior = FrozenSampler(run.config.evaluation_sampler(may_miss=True), (), run.step)
    return _read(key, model, run.params, jnp.asarray(x)[None], posterior, num=num)


@full_precision
@functools.partial(jax.jit, static_argnames=("model", "num"))
def _read(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler, *, num: int) -> Reading:
    key_draw, key_weights, key_order = jax.random.split(key, 3)
    draws = posterior.draw(key_draw, model, params, x)
    latents, weights = draws.pooled()  # of one datum: its own posterior
    kept = jax.random.permutation(key_order, systematic(key_weights, weights))  # equally weighted from here on
    mean = draws.mean(model.decode(params, draws.z))[0]
    clusters = None
    if isinstance(model.prior, ClusteredPrior):
        clusters = draws.mean(jnp.exp(model.prior.log_responsibilities(params["prior"], draws.z)))[0]
    return Reading(latents[kept[jnp.arange(num) % len(kept)]], mean, clusters)


def read_score(key: Array, run: Run, x: np.ndarray) -> dict[str, Any]:
    """Log p(x) of x [*data_shape], NaN where it is missing, as `kaem score` finds it.

    Returns:
      JSON: `value` and `standard_error` in nats, `ess` of `num_proposals`, and `is_bound`: see
      `kaem_jax.log_prob`. For a prior that is not normalised only a `reason`.
    """
    prior = run.model.prior
    if not prior.is_normalized:
        return {"reason": f"{type(run.model.prior).__name__} is not normalised, so log p(x) is unknown"}
    may_miss = bool(np.isnan(x).any())
    proposal = run.config.inference_proposal(may_miss)
    options = {"proposal": proposal, "num_samples": NUM_PROPOSALS, "may_miss": may_miss}
    options["chunk_size"] = run.config.evaluation.latents_at_once
    found = _score(key, run.model, run.params, jnp.asarray(x)[None], **options)
    numbers = {name: float(getattr(found, name)[0]) for name in ("value", "standard_error", "ess")}
    if not all(math.isfinite(value) for value in numbers.values()):
        return {"reason": "no proposal has any density, so log p(x) is unknown"}
    return numbers | {"num_proposals": NUM_PROPOSALS, "is_bound": bool(found.is_bound[0])}
