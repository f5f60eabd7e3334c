"""The curvature of the log-likelihood, for proposals and metrics."""

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
    """W v for each direction v, with W = -d^2 log p(x | output) / d output^2 of the Gauss-Newton matrix J^T W J.

    The likelihoods of this package are log-concave in the output, so that W has no negative eigenvalue. For other
    likelihoods of independent values, a negative curvature, as in heavy tails, counts as 0.

    Args:
      output: [C, B, D].
      x: [B, *data_shape].
      directions: [Q, C, B, D].

    Returns:
      [Q, C, B, D].
    """
    _, product = jax.linearize(lambda output: _slope(model, params, output, _flat(x)), output)
    # The row sums of W are the curvatures of independent values, and 0 for a softmax.
    negative = jnp.maximum(product(jnp.ones_like(output)), 0)
    return negative * directions - jax.lax.map(product, directions)


def probed_curvature(key: Array, model: Model, params: Params, z: Array, x: Array, table: Table) -> Array:
    """J^T s, where s is the gradient of log p(x' | output) at a draw x': its outer products average to J^T W J.

    It takes one vector-Jacobian product. Here W is its mean over draws x', the Fisher information; for a Gaussian
    likelihood both are equal.

    Args:
      z: latents [C, B, *event].
      x: [B, *data_shape]; an autoregressive decoder reads x, not x'.
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
