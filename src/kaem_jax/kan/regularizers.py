"""Penalties on a bank of functions: sizes, their spread over the bank, and roughness (docs/method.md, section 10)."""

import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank, Params

__all__ = ["penalties"]


def penalties(bank: FunctionBank, params: Params, x: Array, weights: Array | None = None) -> dict[str, Array]:
    """The four penalties of one bank, scalars.

    `l1` is the sum of the functions' sizes std(f(x)) / std(x). `entropy` is the entropy, in nats, of their shares of
    this sum. `coefficient` is the sum of the magnitudes of the coefficients, and `difference` is the sum of the
    magnitudes of differences between neighbouring coefficients; both use coefficients times basis weights.

    Args:
      params: the bank's parameters.
      x: [N, Q, P'] the bank's inputs. They are not differentiated.
      weights: [N] weights of `x` that add up to 1; None for equal weights.
    """
    spread = jnp.sqrt(_variance(x, weights))
    # The small constant keeps the gradient finite at 0.
    deviation = jnp.sqrt(_variance(bank.evaluate(params, x), weights) + 1e-12)
    size = deviation / jnp.maximum(spread, 1e-6)  # [Q, P]
    share = size / jnp.maximum(jnp.sum(size), 1e-12)
    coefficients = params["basis_weight"][..., None] * params["coefficients"]
    return {
        "l1": jnp.sum(size),
        "entropy": -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))),
        "coefficient": jnp.sum(jnp.abs(coefficients)),
        "difference": jnp.sum(jnp.abs(jnp.diff(coefficients, axis=-1))),
    }


def _variance(values: Array, weights: Array | None) -> Array:
    """The variance over the first axis, [N, ...] to [...]."""
    if weights is None:
        return jnp.var(values, axis=0)
    mean = jnp.tensordot(weights, values, axes=1)
    return jnp.tensordot(weights, jnp.square(values - mean), axes=1)
