"""Training losses whose gradient is that of -log p(x), by Fisher's identity (method section 5)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.config import PosteriorConfig
from kaem_jax.model import Model
from kaem_jax.objective.draws import Draws
from kaem_jax.parallel import constrain

__all__ = ["posterior_loss"]


def posterior_loss(
    key: Array,
    model: Model,
    params: Any,
    x: Array,
    draws: Draws,
    settings: PosteriorConfig,
    betas: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """-E[log p(x, z)] under posterior draws, which stay fixed: its gradient estimates that of -mean_b log p(x_b).

    log p(z) is normalised and differentiated through the quadrature, so the negative phase E_p[grad f] is exact and
    needs no draws. With `sampled` the mean of log p(z) over prior draws is subtracted: whatever the normaliser is, it
    cancels, which is the contrastive form E_post[grad f] - E_prior[grad f].

    The objectives `thermodynamic` and `steppingstone` put the paper's sums over all rungs, with fixed draws, in the
    place of log p(x | z) at beta = 1. Their gradients are not that of log p(x) (method section 9).

    Args:
      key: used by the sampled negative phase only.
      x: [B, *data_shape].
      draws: of `draw_posterior`.
      settings: its objective and negative phase are read.
      betas: [T] of the draws' rungs, where the objective sums over them.

    Returns:
      The loss, a scalar in nats per datum, and the metrics of the sampler with `loss` (-mean log-evidence where the
      sampler knows it) and, of chains, `log_likelihood` (mean log p(x|z) over the posterior).
    """
    table = model.prior.tabulate(params["prior"])
    z, metrics = draws.z, dict(draws.metrics)
    if draws.rungs is not None and settings.objective == "posterior":
        # Only the last rung is differentiated: the devices of all rungs share its data.
        z, x = constrain(z, None, ("data", "temp")), constrain(x, ("data", "temp"))
    log_prior = model.prior.log_prob(params["prior"], z, table)
    if draws.weights is not None:
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table)
        loss = -jnp.mean(jnp.sum(draws.weights * log_likelihood, axis=-1) + draws.weights @ log_prior)
    elif settings.objective == "posterior":
        log_likelihood = model.log_likelihood(params, z, x, table)
        loss = -jnp.mean(log_prior + log_likelihood)
        metrics["log_likelihood"] = jnp.mean(log_likelihood)
    else:
        assert draws.rungs is not None
        assert betas is not None
        rungs = model.log_likelihood(params, draws.rungs, x, table)  # [T, C, B]
        loss = -jnp.mean(log_prior) - jnp.mean(_detached_sum(rungs, betas, settings.objective))
        metrics["log_likelihood"] = jnp.mean(rungs[-1])
    if settings.negative_phase == "sampled":
        num_draws = draws.z.shape[0] if draws.weights is not None else draws.z.shape[0] * draws.z.shape[1]
        frozen = jax.lax.stop_gradient(table)
        z_prior = jax.lax.stop_gradient(model.prior.sample(key, frozen, (num_draws,)))
        loss += jnp.mean(model.prior.log_prob(params["prior"], z_prior, table))
    metrics["loss"] = -metrics["log_evidence"] if "log_evidence" in metrics else loss
    return loss, metrics


def _detached_sum(log_likelihood: Array, betas: Array, objective: str) -> Array:
    """The paper's estimates of log p(x) from draws that its gradient takes for fixed: [T, C, B] to [B]."""
    width = jnp.diff(betas)[:, None]
    if objective == "thermodynamic":
        mean = jnp.mean(log_likelihood, axis=1)
        return jnp.sum(width * (mean[:-1] + mean[1:]) / 2, axis=0)
    ratios = jax.nn.logsumexp(width[..., None] * log_likelihood[:-1], axis=1) - jnp.log(log_likelihood.shape[1])
    return jnp.sum(ratios, axis=0)
