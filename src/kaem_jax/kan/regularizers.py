"""Penalties on a bank of functions: sizes, their spread over the bank, and roughness (docs/method.md, section 10)."""

import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank, Params

__all__ = ["REGULARIZERS", "penalties"]

REGULARIZERS = ("l1", "entropy", "coefficient", "difference")


def penalties(bank: FunctionBank, params: Params, x: Array, weights: Array | None = None) -> dict[str, Array]:
    """The four penalties of one bank, scalars.

    `l1` is the sum of the functions' sizes std(f(x)) / std(x); `entropy` that of their shares of this sum, in nats;
    `coefficient` the sum of the coefficients' magnitudes and `difference` that of neighbouring coefficients'
    differences, both times the basis weights.

    Args:
      params: of the bank.
      x: [N, Q, P'] what reaches the bank. It is not differentiated.
      weights: [N] of `x`, adding up to 1; None for equal ones.
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
    """Over the first axis, [N, ...] to [...]."""
    if weights is None:
        return jnp.var(values, axis=0)
    mean = jnp.tensordot(weights, values, axes=1)
    return jnp.tensordot(weights, jnp.square(values - mean), axes=1)
