"""Training losses whose gradient is that of -log p(x), by Fisher's identity (method section 5)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.model import Model
from kaem_jax.posterior.importance import weigh
from kaem_jax.prior.cdf_table import CdfTable

__all__ = ["importance_loss", "weighted_loss"]

Params = dict[str, Any]


def importance_loss(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_samples: int,
    ess_threshold: float = 0.0,
    resampling: str = "systematic",
) -> tuple[Array, dict[str, Array]]:
    """Loss of a minibatch by importance sampling with S shared prior draws.

    Returns:
      The loss, a scalar in nats per datum whose gradient estimates that of -mean_b log p(x_b) with O(1/S) bias, and
      metrics, scalars: `loss` (-mean log-evidence, the quantity that is minimised), `log_evidence`, `ess` (mean over
      data), `ess_min`.
    """
    key_draw, key_resample = jax.random.split(key)
    table = model.prior.tabulate(params["prior"])
    z = jax.lax.stop_gradient(model.prior.sample(key_draw, jax.lax.stop_gradient(table), (num_samples,)))
    return weighted_loss(key_resample, model, params, table, z, x, ess_threshold, resampling)


def weighted_loss(
    key: Array,
    model: Model,
    params: Params,
    table: CdfTable,
    z: Array,
    x: Array,
    ess_threshold: float = 0.0,
    resampling: str = "systematic",
) -> tuple[Array, dict[str, Array]]:
    """The loss on given prior draws z [S, *event_shape]; neither they nor their weights are differentiated.

    log p(z) is normalised and differentiated through the quadrature, so the negative phase E_p[grad f] is exact and
    needs no samples of its own.
    """
    log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
    posterior = weigh(key, z, jax.lax.stop_gradient(log_likelihood), ess_threshold, resampling)
    weights = jnp.exp(posterior.log_weights)
    log_prior = model.prior.log_prob(params["prior"], z, table=table)
    joint = jnp.sum(weights * log_likelihood, axis=-1) + weights @ log_prior
    surrogate = -jnp.mean(joint)
    log_evidence = jnp.mean(posterior.log_evidence)
    metrics = {
        "loss": -log_evidence,
        "log_evidence": log_evidence,
        "ess": jnp.mean(posterior.ess),
        "ess_min": jnp.min(posterior.ess),
    }
    return surrogate, metrics
