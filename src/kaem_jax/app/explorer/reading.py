"""What a trained model says about one datum: its posterior, its reconstruction, log p(x), its cluster."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.runs.load import Run
from kaem_jax.inference.log_prob import log_prob, of_observed
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.inference.samplers.importance_sampler import resample
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior

_NUM_DRAWS = 8
_NUM_PROPOSALS = 1000
_NUM_NAMED, _LEAST_NAMED = 4, 0.01  # clusters in a sentence

_log_prob = jax.jit(log_prob, static_argnums=1, static_argnames=("proposal", "num_samples", "chunk_size", "may_miss"))


def read_posterior(key: Array, run: Run, x: np.ndarray) -> tuple[Array, Array, Array | None]:
    """The posterior of x [*data_shape], NaN where values are missing, by the run's sampler of evaluation.

    Returns:
      equally weighted draws [S, *event_shape], the posterior mean of E[x | z], [*data_shape], and p(c | x) [C] of a
      clustered prior, else None.
    """
    model, posterior = run.model, run.posterior
    if np.isnan(x).any():
        model = of_observed(run.model)
        if isinstance(run.config.evaluation.proposal, EncoderProposal):  # it would read what is missing as 0
            posterior = FrozenSampler(run.config.evaluation_sampler(may_miss=True), (), run.step)
    return _read(key, model, run.params, jnp.asarray(x)[None], posterior)


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def _read(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> Any:
    key_draw, key_resample = jax.random.split(key)
    draws = posterior.draw(key_draw, model, params, x)
    latents, weights = draws.pooled()  # of one datum: its own posterior
    kept = resample(key_resample, weights[None], _NUM_DRAWS)[0]
    mean = draws.mean(model.decode(params, draws.z))[0]
    clusters = None
    if isinstance(model.prior, ClusteredPrior):
        clusters = draws.mean(jnp.exp(model.prior.bind(params["prior"]).log_responsibilities(draws.z)))[0]
    return latents[kept], mean, clusters


def read_score(key: Array, run: Run, x: np.ndarray) -> str:
    """A sentence with log p(x), as `kaem score` finds it, for x [*data_shape], NaN where values are missing."""
    if not run.model.prior.is_normalized:
        return f"log p(x) is unknown: {type(run.model.prior).__name__} is not normalised."
    may_miss = bool(np.isnan(x).any())
    found = _log_prob(
        key,
        run.model,
        run.params,
        jnp.asarray(x)[None],
        proposal=run.config.inference_proposal(may_miss),
        num_samples=_NUM_PROPOSALS,
        chunk_size=run.config.evaluation.latents_at_once,
        may_miss=may_miss,
    )
    value, error, ess = (float(number[0]) for number in (found.value, found.standard_error, found.ess))
    if not math.isfinite(value + error + ess):
        return "log p(x) is unknown: no proposal has any density."
    of = f"(ESS {ess:.0f} of {_NUM_PROPOSALS:,} proposals)"
    if found.is_bound[0]:
        return f"log p(x) is at least {value:.1f} nats {of}."
    return f"log p(x) = {value:.1f} ± {error:.2f} nats {of}."


def heaviest_clusters(shares: np.ndarray) -> str:
    """Probabilities of clusters [C] in words, such as "3 (71 %), 5 (20 %)"."""
    order = np.argsort(-shares, kind="stable")[:_NUM_NAMED]
    return ", ".join(f"{c} ({percent(shares[c])})" for c in order if c == order[0] or shares[c] >= _LEAST_NAMED)


def percent(share: float) -> str:
    """A share in 0..1, with one decimal below 10 %."""
    return f"{100 * share:.{1 if share < 0.0995 else 0}f} %"
