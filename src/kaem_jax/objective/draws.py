"""Draws from the posteriors of a minibatch, by the sampler that the settings name."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.config import PosteriorConfig
from kaem_jax.model import Model
from kaem_jax.parallel import constrain
from kaem_jax.posterior.importance import weigh
from kaem_jax.posterior.ladder import power_ladder
from kaem_jax.posterior.langevin import langevin_posterior
from kaem_jax.posterior.tempering import tempered_posterior

__all__ = ["Draws", "draw_posterior"]


class Draws(NamedTuple):
    """A sample of the posteriors of a minibatch. Nothing in it is differentiated.

    Attributes:
      z: [S, *event] proposals that all data share, or chains of their own for each datum, [C, B, *event].
      weights: [B, S] over shared proposals, None for chains, which weigh the same.
      metrics: scalars; what the sampler says about itself.
      acceptance: mean acceptance probability of the chains, a scalar, or [T] by rung of a tempered population.
      rungs: of a tempered population, all rungs' draws [T, C, B, *event]; their last is `z`.
      swap_acceptance: [T-1], likewise.
    """

    z: Array
    weights: Array | None
    metrics: dict[str, Array]
    acceptance: Array
    rungs: Array | None = None
    swap_acceptance: Array | None = None

    def pooled(self) -> tuple[Array, Array]:
        """The average posterior over the minibatch: latents [N, *event] and weights [N]."""
        if self.weights is not None:
            return self.z, jnp.mean(self.weights, axis=0)
        z = self.z.reshape(-1, *self.z.shape[2:])
        return z, jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)


def draw_posterior(
    key: Array,
    model: Model,
    params: Any,
    x: Array,
    settings: PosteriorConfig,
    *,
    step_size: Array | None = None,
    betas: Array | None = None,
    chains: Array | None = None,
) -> Draws:
    """Draws from p(z | x_b) for every datum.

    Args:
      x: [B, *data_shape].
      settings: which sampler, and its numbers.
      step_size: of chains, instead of the one in `settings`; [T] for a tempered population.
      betas: [T], instead of the power ladder in `settings`.
      chains: [C, B, *event] where they start, instead of at prior draws; [T, C, B, *event] for a tempered population.
    """
    params = jax.lax.stop_gradient(params)
    table = model.prior.tabulate(params["prior"])
    key_start, key_run = jax.random.split(key)
    if settings.kind == "importance":
        z = constrain(model.prior.sample(key_start, table, (settings.num_samples,), settings.points), "data")
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
        weighed = weigh(key_run, z, log_likelihood, settings.ess_threshold, settings.resampling)
        metrics = {
            "log_evidence": jnp.mean(weighed.log_evidence),
            "ess": jnp.mean(weighed.ess),
            "ess_min": jnp.min(weighed.ess),
        }
        return Draws(z, jnp.exp(weighed.log_weights), metrics, jnp.ones((), z.dtype))

    tempered = settings.kind == "tempered"
    rungs = (settings.num_temperatures,) if tempered else ()
    if chains is None:
        chains = model.prior.sample(key_start, table, (*rungs, settings.num_chains, len(x)), settings.points)
    chains = constrain(chains, *["temp"] * tempered, None, "data")
    eta = settings.step_size if step_size is None else step_size
    if not tempered:
        run = langevin_posterior(
            key_run,
            lambda z: model.prior.log_prob(params["prior"], z, table) + model.log_likelihood(params, z, x, table),
            chains,
            kernel=settings.kernel,
            num_steps=settings.num_steps,
            step_size=eta,
            bounds=model.prior.bounds,
        )
        acceptance = jnp.mean(run.acceptance)
        return Draws(run.z, None, {} if settings.kernel == "ula" else {"acceptance": acceptance}, acceptance)

    # A tempered population knows data, not chains: each chain is a datum of its own that has the same x. Chains of one
    # datum are neighbours, so that they lie on its device.
    repeated = jnp.repeat(x, settings.num_chains, axis=0)
    num_rungs, shape = settings.num_temperatures, (*rungs, len(repeated), *model.prior.event_shape)
    population = tempered_posterior(
        key_run,
        lambda z: model.prior.log_prob(params["prior"], z, table),
        lambda z: model.log_likelihood(params, z, repeated, table),
        jnp.swapaxes(chains, 1, 2).reshape(shape),
        power_ladder(num_rungs, settings.exponent) if betas is None else betas,
        kernel=settings.kernel,
        num_rounds=settings.num_steps // settings.steps_per_round,
        steps_per_round=settings.steps_per_round,
        step_size=eta,
        swap=settings.swap,
        bounds=model.prior.bounds,
        refresh=(lambda key, shape: model.prior.sample(key, table, shape)) if settings.refresh else None,
    )
    ends = population.z.reshape(num_rungs, len(x), settings.num_chains, *model.prior.event_shape).swapaxes(1, 2)
    info, metrics = population.info, {}
    if settings.kernel != "ula":
        metrics["acceptance"] = info.acceptance[-1]
    if num_rungs > 1:
        metrics["swap_acceptance"] = jnp.mean(info.swap_acceptance)
        metrics["swap_acceptance_min"] = jnp.min(info.swap_acceptance)
        metrics["round_trips"] = jnp.mean(info.round_trips, dtype=ends.dtype)
    return Draws(ends[-1], None, metrics, info.acceptance, ends, info.swap_acceptance)
