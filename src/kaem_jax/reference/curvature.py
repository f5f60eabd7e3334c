"""The curvature of the log-likelihood, of which references and metrics are made."""

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.model import Model, Params
from kaem_jax.prior.base import Table

__all__ = ["output_curvature", "probed_curvature"]


def output_curvature(model: Model, params: Params, output: Array, x: Array) -> Array:
    """W = -d^2 log p(x | output) / d output^2, value by value, not below 0: output [..., B, D], x [B, *data_shape].

    The log-likelihood is a sum over values of the output, so its second derivative in all of them at once is that in
    each.
    """
    flat = x.reshape(len(x), -1)

    def slope(output: Array) -> Array:
        return jax.grad(lambda o: jnp.sum(model.likelihood.log_prob(params["likelihood"], o, flat)))(output)

    _, second = jax.jvp(slope, (output,), (jnp.ones_like(output),))
    return jnp.maximum(-second, 0)


def probed_curvature(key: Array, model: Model, params: Params, z: Array, x: Array, table: Table) -> Array:
    """J^T W^(1/2) v with v ~ N(0, I), by one vector-Jacobian product: the mean of its outer products is J^T W J.

    Args:
      z: latents [C, B, *event].
      x: [B, *data_shape].
      table: of the prior.

    Returns:
      [C, B, *event].
    """

    def output(z: Array) -> Array:
        return model.output(params, z, table).reshape(*z.shape[:2], -1)

    at, pullback = jax.vjp(output, z)
    noise = jax.random.normal(key, at.shape, at.dtype)
    return pullback(jnp.sqrt(output_curvature(model, params, at, x)) * noise)[0]
