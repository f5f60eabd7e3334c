"""Training losses whose gradient is that of -log p(x), by Fisher's identity (method section 5)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.config import PosteriorConfig, RegularizationConfig
from kaem_jax.generator import KanGenerator
from kaem_jax.kan.regularizers import REGULARIZERS, penalties
from kaem_jax.model import Model
from kaem_jax.posterior.importance import weigh
from kaem_jax.posterior.langevin import langevin_posterior
from kaem_jax.prior.mixture import MixturePrior
from kaem_jax.prior.tabulated import TabulatedPrior

__all__ = ["Draws", "draw_posterior", "penalty", "posterior_loss"]

Params = dict[str, Any]
Metrics = dict[str, Array]


class Draws(NamedTuple):
    """A sample of the posteriors of a minibatch. Nothing in it is differentiated.

    Attributes:
      z: [S, *event] proposals that all data share, or chains of their own for each datum, [C, B, *event].
      weights: [B, S] over shared proposals, None for chains, which weigh the same.
      metrics: scalars; what the sampler says about itself.
      acceptance: scalar, mean acceptance probability of the chains, 1 for other samplers.
    """

    z: Array
    weights: Array | None
    metrics: Metrics
    acceptance: Array

    def pooled(self) -> tuple[Array, Array]:
        """The average posterior over the minibatch: latents [N, *event] and weights [N]."""
        if self.weights is not None:
            return self.z, jnp.mean(self.weights, axis=0)
        z = self.z.reshape(-1, *self.z.shape[2:])
        return z, jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)


def draw_posterior(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    settings: PosteriorConfig,
    *,
    step_size: Array | None = None,
    chains: Array | None = None,
) -> Draws:
    """Draws from p(z | x_b) for every datum.

    Args:
      x: [B, *data_shape].
      settings: which sampler, and its numbers.
      step_size: of Langevin chains, instead of the one in `settings`.
      chains: [C, B, *event] where they start, instead of at prior draws.
    """
    params = jax.lax.stop_gradient(params)
    table = model.prior.tabulate(params["prior"])
    key_start, key_run = jax.random.split(key)
    if settings.kind == "importance":
        z = model.prior.sample(key_start, table, (settings.num_samples,), settings.points)
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
        weighed = weigh(key_run, z, log_likelihood, settings.ess_threshold, settings.resampling)
        metrics = {
            "log_evidence": jnp.mean(weighed.log_evidence),
            "ess": jnp.mean(weighed.ess),
            "ess_min": jnp.min(weighed.ess),
        }
        return Draws(z, jnp.exp(weighed.log_weights), metrics, jnp.ones((), z.dtype))

    if chains is None:
        chains = model.prior.sample(key_start, table, (settings.num_chains, x.shape[0]), settings.points)
    run = langevin_posterior(
        key_run,
        lambda z: model.prior.log_prob(params["prior"], z, table) + model.log_likelihood(params, z, x, table),
        chains,
        kernel=settings.kernel,
        num_steps=settings.num_steps,
        step_size=settings.step_size if step_size is None else step_size,
        bounds=model.prior.bounds,
    )
    acceptance = jnp.mean(run.acceptance)
    return Draws(run.z, None, {} if settings.kernel == "ula" else {"acceptance": acceptance}, acceptance)


def posterior_loss(
    key: Array, model: Model, params: Params, x: Array, draws: Draws, negative_phase: str = "exact"
) -> tuple[Array, Metrics]:
    """-E[log p(x, z)] under posterior draws, which stay fixed: its gradient estimates that of -mean_b log p(x_b).

    log p(z) is normalised and differentiated through the quadrature, so the negative phase E_p[grad f] is exact and
    needs no draws. With `sampled` the mean of log p(z) over prior draws is subtracted: whatever the normaliser is, it
    cancels, which is the contrastive form E_post[grad f] - E_prior[grad f].

    Args:
      key: used by the sampled negative phase only.
      x: [B, *data_shape].
      draws: of `draw_posterior`.

    Returns:
      The loss, a scalar in nats per datum, and the metrics of the sampler with `loss` (-mean log-evidence where the
      sampler knows it) and, of chains, `log_likelihood` (mean log p(x|z) over the posterior).
    """
    table = model.prior.tabulate(params["prior"])
    z, metrics = draws.z, dict(draws.metrics)
    log_prior = model.prior.log_prob(params["prior"], z, table)
    if draws.weights is None:
        log_likelihood = model.log_likelihood(params, z, x, table)
        loss = -jnp.mean(log_prior + log_likelihood)
        metrics["log_likelihood"] = jnp.mean(log_likelihood)
    else:
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table)
        loss = -jnp.mean(jnp.sum(draws.weights * log_likelihood, axis=-1) + draws.weights @ log_prior)
    if negative_phase == "sampled":
        num_draws = draws.z.shape[0] if draws.weights is not None else draws.z.shape[0] * draws.z.shape[1]
        frozen = jax.lax.stop_gradient(table)
        z_prior = jax.lax.stop_gradient(model.prior.sample(key, frozen, (num_draws,)))
        loss += jnp.mean(model.prior.log_prob(params["prior"], z_prior, table))
    metrics["loss"] = -metrics["log_evidence"] if "log_evidence" in metrics else loss
    return loss, metrics


def penalty(model: Model, params: Params, draws: Draws, weights: RegularizationConfig) -> Array:
    """The weighted sum of penalties, a scalar in nats per datum; nothing is computed for weights of zero.

    Function penalties are those of the prior's bank at the posterior draws and of every layer of a KAN generator. The
    Dirichlet penalty is -sum log alpha, the entropy penalty the entropies of the rows of alpha.
    """
    total = jnp.zeros((), draws.z.dtype)
    wanted = {name: getattr(weights, name) for name in REGULARIZERS if getattr(weights, name) > 0}
    if wanted:
        z, _ = draws.pooled()
        table = model.prior.tabulate(jax.lax.stop_gradient(params["prior"]))
        prior = model.prior.centred
        assert isinstance(prior, TabulatedPrior), "a neural prior has no bank to regularise"
        at_bank = model.prior.coordinates(table, z).reshape(-1, *prior.bank.grid_shape)
        layers = [(prior.bank, params["prior"]["bank"], at_bank)]
        if isinstance(model.generator, KanGenerator):
            inputs = model.generator.layer_inputs(params["generator"], model.prior.features(table, z))
            for i, (bank, x) in enumerate(zip(model.generator.layers, inputs, strict=False)):
                layers.append((bank, params["generator"][f"bank_{i}"], x[..., None]))
        for bank, bank_params, x in layers:
            values = penalties(bank, bank_params, jax.lax.stop_gradient(x))
            total += sum(weight * values[name] for name, weight in wanted.items())
    if weights.dirichlet or weights.proportion_entropy:
        mixture = model.prior.centred
        assert isinstance(mixture, MixturePrior), "only a mixture has proportions"
        log_alpha = mixture.log_proportions(params["prior"])
        total -= weights.dirichlet * jnp.sum(log_alpha)
        total -= weights.proportion_entropy * jnp.sum(jnp.exp(log_alpha) * log_alpha)
    return total
