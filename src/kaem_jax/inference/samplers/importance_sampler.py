"""Importance sampling with the prior as proposal, S draws shared by a minibatch (docs/method.md, section 6)."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.inference.samplers.base import StatelessSampler
from kaem_jax.inference.samplers.draws import SharedDraws
from kaem_jax.inference.samplers.resampling import RESAMPLERS, Resampling, resample
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.uniform import Points
from kaem_jax.settings import positive, setting
from kaem_jax.settings.arguments import check_choice

__all__ = ["Importance", "ImportancePosterior", "importance_posterior", "weigh"]


class ImportancePosterior(NamedTuple):
    """A weighted sample of p(z | x_b) on S shared points: E[h(z) | x_b] is about sum_s exp(log_weights[b, s]) h(z_s).

    Attributes:
      z: [S, *event_shape] proposals.
      log_weights: [B, S] nats, normalised over S. If a datum was resampled, a weight is n / S, with n the number of
        offspring: this equals n equally weighted copies, without copying z for every datum.
      ess: [B] effective sample size 1 / sum_s w^2 of the weights before any resampling, in 1..S.
      log_evidence: [B] nats, log mean_s p(x_b | z_s); its exponential is unbiased for p(x_b).
      resampled: [B] bool, whether the ESS fell below the threshold.
    """

    z: Array
    log_weights: Array
    ess: Array
    log_evidence: Array
    resampled: Array


def weigh(
    key: Array, z: Array, log_likelihood: Array, ess_threshold: float = 0.0, resampling: str = "systematic"
) -> ImportancePosterior:
    """Self-normalises draws of the prior by their likelihood.

    Args:
      key: used only if something is resampled.
      z: [S, *event_shape] draws of the prior.
      log_likelihood: [B, S] nats, log p(x_b | z_s).
      ess_threshold: gamma in [0, 1]; a datum is resampled where its ESS < gamma S. One-shot resampling only adds
        variance, so by default there is none.
      resampling: a key of `RESAMPLERS`.
    """
    num_samples = log_likelihood.shape[-1]
    log_total = jax.nn.logsumexp(log_likelihood, axis=-1)
    log_weights = log_likelihood - log_total[:, None]
    weights = jnp.exp(log_weights)
    ess = 1 / jnp.sum(jnp.square(weights), axis=-1)
    resampled = ess < ess_threshold * num_samples
    if ess_threshold > 0:
        ancestors = resample(key, weights, resampling)
        offspring = jax.vmap(lambda row: jnp.bincount(row, length=num_samples))(ancestors)
        equal = jnp.log(offspring.astype(weights.dtype) / num_samples)
        log_weights = jnp.where(resampled[:, None], equal, log_weights)
    return ImportancePosterior(z, log_weights, ess, log_total - jnp.log(num_samples), resampled)


@functools.partial(jax.jit, static_argnames=("model", "num_samples", "points", "ess_threshold", "resampling"))
def importance_posterior(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_samples: int,
    points: Points = "random",
    ess_threshold: float = 0.0,
    resampling: str = "systematic",
) -> ImportancePosterior:
    """Importance-sampled posterior of the latents of x [B, *data_shape], by S decoder calls.

    Args:
      key: a PRNG key.
      model: the model.
      params: the model's parameters. Nothing here is differentiated, neither in them nor in `x`.
      x: [B, *data_shape] data.
      num_samples: S, the number of proposals.
      points: `random` or `sobol` proposals.
      ess_threshold, resampling: see `weigh`.

    Raises:
      ValueError: an option is unknown or out of range, `points` needs quantiles that the prior lacks, or `x` is not
        [B, *data_shape].
    """
    Importance(num_samples=num_samples, points=points, ess_threshold=ess_threshold)
    check_choice("resampling", resampling, sorted(RESAMPLERS))
    key_draw, key_resample = jax.random.split(key)
    params, x = jax.lax.stop_gradient((params, jnp.asarray(x)))
    table = model.prior.tabulate(params["prior"])
    z = constrain(model.prior.sample(key_draw, table, (num_samples,), points), "data")
    log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
    return weigh(key_resample, z, log_likelihood, ess_threshold, resampling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance(StatelessSampler):
    """Weights on proposals that the whole minibatch shares; it carries nothing from step to step.

    Attributes:
      num_samples: S, proposals from the prior.
      points: `random` or `sobol`.
      ess_threshold, resampling: see `weigh`.
    """

    num_samples: int = setting(1000, low=2)
    points: Points = "random"
    ess_threshold: float = setting(0.0, low=0, high=1)
    resampling: Resampling = setting("systematic", needs={"ess_threshold": positive})

    def check(self, prior: Prior) -> None:
        if self.points != "random" and not prior.has_exact_draws:
            raise ValueError(f"points={self.points!r} needs a prior with quantiles: set 'random'")

    def draws(self, key: Array, step: Array | int, model: Model, params: Params, x: Array) -> SharedDraws:
        posterior = importance_posterior(
            key,
            model,
            params,
            x,
            num_samples=self.num_samples,
            points=self.points,
            ess_threshold=self.ess_threshold,
            resampling=self.resampling,
        )
        metrics = {
            "log_evidence": jnp.mean(posterior.log_evidence),
            "ess": jnp.mean(posterior.ess),
            "ess_min": jnp.min(posterior.ess),
        }
        return SharedDraws(posterior.z, jnp.exp(posterior.log_weights), metrics)
