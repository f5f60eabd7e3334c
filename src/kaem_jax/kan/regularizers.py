"""Penalties on a bank of functions: sizes, their spread over the bank, and roughness (method section 10)."""

import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank, Params

__all__ = ["REGULARIZERS", "penalties"]

REGULARIZERS = ("l1", "entropy", "coefficient", "difference")


def penalties(bank: FunctionBank, params: Params, x: Array) -> dict[str, Array]:
    """The four penalties of one bank, scalars.

    `l1` is the sum of the functions' sizes std(f(x)) / std(x); `entropy` that of their shares of this sum, in nats;
    `coefficient` the sum of the coefficients' magnitudes and `difference` that of neighbouring coefficients'
    differences, both times the basis weights.

    Args:
      params: of the bank.
      x: [N, Q, P'] what reaches the bank. It is not differentiated.
    """
    spread = jnp.std(x, axis=0)
    size = _safe_std(bank.evaluate(params, x)) / jnp.maximum(spread, 1e-6)  # [Q, P]
    share = size / jnp.maximum(jnp.sum(size), 1e-12)
    coefficients = params["basis_weight"][..., None] * params["coefficients"]
    return {
        "l1": jnp.sum(size),
        "entropy": -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))),
        "coefficient": jnp.sum(jnp.abs(coefficients)),
        "difference": jnp.sum(jnp.abs(jnp.diff(coefficients, axis=-1))),
    }


def _safe_std(values: Array) -> Array:
    """Standard deviation over the first axis, whose gradient is finite at 0 too."""
    return jnp.sqrt(jnp.var(values, axis=0) + 1e-12)
