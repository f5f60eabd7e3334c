"""Importance sampling with S prior draws that a minibatch shares (docs/method.md, section 6)."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers.base import ChainDraws, Sampler, SamplerState, SharedDraws
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.uniform import Points
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import check_integer


class ImportancePosterior(NamedTuple):
    """A weighted sample of p(z | x_b) on S shared points: E[h(z) | x_b] is about sum_s exp(log_weights[b, s]) h(z_s).

    Attributes:
      z: [S, *event_shape] proposals.
      log_weights: [B, S] nats, normalised over S.
      ess: [B] effective sample size 1 / sum_s w^2, in 1..S.
      log_evidence: [B] nats, log mean_s p(x_b | z_s); its exponential is unbiased for p(x_b).
    """

    z: Array
    log_weights: Array
    ess: Array
    log_evidence: Array


def weigh(z: Array, log_likelihood: Array) -> ImportancePosterior:
    """Self-normalises draws of the prior, z [S, *event_shape], by log p(x_b | z_s), [B, S] nats."""
    log_total = jax.nn.logsumexp(log_likelihood, axis=-1)
    log_weights = log_likelihood - log_total[:, None]
    ess = 1 / jnp.sum(jnp.exp(2 * log_weights), axis=-1)
    return ImportancePosterior(z, log_weights, ess, log_total - jnp.log(log_likelihood.shape[-1]))


def resample(key: Array, weights: Array, num_draws: int) -> Array:
    """Systematic resampling (Douc, Cappe & Moulines, 2005), independently for each row of weights [B, S].

    Returns:
      int32 [B, R], sorted indices for R = `num_draws`. Index s occurs R w_s times on average over keys, rounded up or
      down in each row.
    """

    def one(shift: Array, weights: Array) -> Array:
        cumulative = jnp.cumsum(weights)
        u = (jnp.arange(num_draws, dtype=weights.dtype) + shift) / num_draws
        # The last point with a positive weight: rounding may make u times the total equal to the total.
        last = weights.size - 1 - jnp.argmax(weights[::-1] > 0)
        found = jnp.searchsorted(cumulative, u * cumulative[-1], side="right")
        return jnp.minimum(found, last).astype(jnp.int32)

    return jax.vmap(one)(jax.random.uniform(key, weights.shape[:1], weights.dtype), weights)


@functools.partial(jax.jit, static_argnames=("model", "num_samples", "points"))
def importance_posterior(
    key: Array, model: Model, params: Params, x: Array, *, num_samples: int, points: Points = "random"
) -> ImportancePosterior:
    """Importance-sampled posterior of the latents of x [B, *data_shape], by S decoder calls.

    Nothing is differentiated, neither in `params` nor in `x`.

    Args:
      x: [B, *data_shape] data.
      num_samples: S, the number of proposals.
      points: `random` or `sobol` proposals.

    Raises:
      ValueError: an option is unknown or out of range, `points` needs quantiles that the prior lacks, or `x` is not
        [B, *data_shape].

    Example:
      >>> found = kaem.importance_posterior(key, model, params, x, num_samples=100)
      >>> found.ess.shape
      (10,)
    """
    check_integer("num_samples", num_samples, low=2)
    params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
    prior = model.prior.bind(params["prior"])
    z = constrain(prior.sample(key, (num_samples,), points), "data")
    return weigh(z, model.pairwise_log_likelihood(params, z, x, prior=prior))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance(Sampler):
    """Weighted draws of the prior, shared by the whole minibatch.

    Attributes:
      num_samples: S, proposals from the prior.
      num_draws: R, draws resampled for each datum, whose gradients cost B R evaluations instead of S; 0 keeps all
        proposals with their weights.
      points: `random` or `sobol` draws of the prior.

    Example:
      >>> posterior = kaem.Importance(num_samples=500, points="sobol")
      >>> posterior.draw(key, model, params, x).z.shape
      (500, 2)
    """

    num_samples: int = setting(1000, low=2)
    num_draws: int = setting(0, low=0)
    points: Points = "random"

    def check(self, prior: Prior) -> None:
        if self.points != "random" and not prior.has_exact_draws:
            raise ValueError(f"points={self.points!r} needs a prior with quantiles: set 'random'")

    def step(
        self, key: Array, step: Array | int, state: SamplerState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[SharedDraws | ChainDraws, SamplerState]:  # fmt: skip
        key_draw, key_resample = jax.random.split(key)
        options = {"num_samples": self.num_samples, "points": self.points}
        posterior = importance_posterior(key_draw, model, params, x, **options)
        metrics = {
            "log_evidence": jnp.mean(posterior.log_evidence),
            "ess": jnp.mean(posterior.ess),
            "ess_min": jnp.min(posterior.ess),
        }
        weights = jnp.exp(posterior.log_weights)
        if not self.num_draws:
            return SharedDraws(posterior.z, weights, metrics), state
        return ChainDraws(posterior.z[resample(key_resample, weights, self.num_draws).T], metrics), state
