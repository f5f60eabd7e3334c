"""The curvature of the log-likelihood, of which proposals and metrics are made."""

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.model import Model, Params
from kaem_jax.priors.base import Table

__all__ = ["curvature_along", "output_of", "probed_curvature"]


def output_of(model: Model, params: Params, z: Array, x: Array, table: Table) -> Array:
    """The decoder's output for latents [C, B, *event] and data [B, *data_shape], flat: [C, B, D]."""
    return model.output(params, z, table, x).reshape(*z.shape[:2], -1)


def curvature_along(model: Model, params: Params, output: Array, x: Array, directions: Array) -> Array:
    """W v of each direction v, W = -d^2 log p(x | output) / d output^2: the Gauss-Newton method's middle matrix.

    The likelihoods of this package are log-concave in the output, so that W has no negative eigenvalue. Where values
    are independent and the curvature in one of them is negative, as in the tails of heavy-tailed laws, it counts as 0.

    Args:
      output: [C, B, D].
      x: [B, *data_shape].
      directions: [Q, C, B, D].

    Returns:
      [Q, C, B, D].
    """
    _, product = jax.linearize(lambda output: _slope(model, params, output, _flat(x)), output)
    # The sums of W's rows are the curvatures of independent values; those of a softmax are 0.
    negative = jnp.maximum(product(jnp.ones_like(output)), 0)
    return negative * directions - jax.lax.map(product, directions)


def probed_curvature(key: Array, model: Model, params: Params, z: Array, x: Array, table: Table) -> Array:
    """J^T s, s the slope of log p(x' | z) in the output at a draw x': the mean of its outer products is J^T W J.

    It takes one vector-Jacobian product. W here is its mean over data, Fisher's information; for Gaussian data both are
    the same.

    Args:
      z: latents [C, B, *event].
      x: [B, *data_shape], which an autoregressive decoder reads; only the values that it makes are drawn anew.
      table: of the prior.

    Returns:
      [C, B, *event].
    """
    at, pullback = jax.vjp(lambda z: output_of(model, params, z, x, table), z)
    flat = _flat(x)
    drawn = model.likelihood.sample(key, params["likelihood"], at)
    drawn = jnp.where(jnp.isnan(flat), flat, drawn.astype(flat.dtype))  # what is missing says nothing
    return pullback(_slope(model, params, at, drawn))[0]


def _slope(model: Model, params: Params, output: Array, x: Array) -> Array:
    """The derivative of log p(x | output) in the output: [C, B, D], x [B, D'] or [C, B, D']."""
    return jax.grad(lambda output: jnp.sum(model.likelihood.log_prob(params["likelihood"], output, x)))(output)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(float)
