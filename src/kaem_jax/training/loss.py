"""Training losses whose gradient is that of -log p(x), by Fisher's identity (docs/method.md, section 5)."""

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.samplers import ChainDraws, Draws, EncoderDraws, ParticleDraws
from kaem_jax.model import Model, Params
from kaem_jax.priors import ClusteredPrior


def posterior_loss(
    key: Array, model: Model, params: Params, x: Array, draws: Draws, labels: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """-E[log p(x, z)] over fixed posterior draws; its gradient estimates that of -mean_b log p(x_b).

    log p(z) is normalised and differentiated through the quadrature, so the negative phase E_p[grad f] is exact and
    needs no draws. Without a normaliser, the mean of log p(z) over prior draws is added: the normaliser cancels, and
    the gradient is the contrastive E_prior[grad f] - E_post[grad f].

    Draws of an encoder give the negative lower bound on log p(x), differentiated through the draws; with `labels` y,
    that on log p(x, y), which needs a clustered prior with classes.

    Args:
      key: used by priors without a normaliser only.
      params: the model's parameters, with those of the sampler.
      x: [B, *data_shape].
      draws: the result of a sampler's `draw`.
      labels: int [B] classes; they need draws of an encoder.

    Returns:
      The loss, a scalar in nats per datum, and the sampler's metrics with `loss` added (-mean log-evidence if the
      sampler estimates it). If it does not, `log_likelihood` is added too: the posterior mean of log p(x|z), or the sum
      over rungs of `RungDraws`.

    Raises:
      ValueError: x or the labels do not fit the prior or the draws.

    Example:
      >>> draws = kaem.Importance(num_samples=100).draw(key, model, params, x)
      >>> gradient, metrics = jax.grad(kaem.posterior_loss, argnums=2, has_aux=True)(key, model, params, x, draws)
    """
    if labels is not None and not isinstance(draws, EncoderDraws):
        raise ValueError("labels need draws of an encoder: leave them out")
    if labels is not None:
        if not isinstance(model.prior, ClusteredPrior):
            raise ValueError("labels need a clustered prior with num_classes, and this prior has no clusters")
        model.prior.check_label(labels)
        if jnp.shape(labels) != (len(x),):
            raise ValueError(f"labels have shape {jnp.shape(labels)}; x of {len(x)} data needs one label for each")
    if isinstance(draws, ChainDraws) and draws.z.shape[1] != len(x):
        raise ValueError(f"the draws are of {draws.z.shape[1]} data, and x has {len(x)}: one datum would be broadcast")
    prior = model.prior.bind(params["prior"])
    if isinstance(draws, EncoderDraws):
        bound, metrics = draws.bound(model, params, x, prior, labels)
        loss = -jnp.mean(bound)
        return loss, dict(draws.metrics) | metrics | {"loss": loss}
    # A class of the caller's own may be no pytree.
    if not isinstance(draws, ParticleDraws) and not jax.tree_util.all_leaves([draws]):
        draws = jax.lax.stop_gradient(draws)
    log_prior = draws.mean(prior.log_prob(draws.z))
    metrics = dict(draws.metrics)
    log_likelihood = draws.mean_log_likelihood(model, params, x, prior)
    loss = -jnp.mean(log_prior + log_likelihood)
    if not model.prior.is_normalized:
        num_draws = draws.pooled()[0].shape[0]
        z_prior = jax.lax.stop_gradient(prior).sample(key, (num_draws,))
        loss += jnp.mean(prior.log_prob(jax.lax.stop_gradient(z_prior)))
    if "log_evidence" in metrics:
        return loss, metrics | {"loss": -metrics["log_evidence"]}
    return loss, metrics | {"loss": loss, "log_likelihood": jnp.mean(log_likelihood)}
