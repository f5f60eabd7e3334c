"""Ladders of inverse temperatures 0 = beta_0 < ... < beta_{T-1} = 1."""

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

Values = TypeVar("Values", Array, np.ndarray)


def power_ladder(num_temperatures: int, exponent: Array | float = 1.0) -> Array:
    """(k / (T - 1))^exponent for k = 0..T-1, [T]; [1.0] for T = 1.

    Exponents above 1 place more rungs near the prior, where the expected log-likelihood changes fastest.
    """
    if num_temperatures == 1:
        return jnp.ones((1,), float)
    return jnp.linspace(0, 1, num_temperatures, dtype=float) ** exponent


def communication_barrier(swap_acceptance: Values) -> Values:
    """Cumulative barrier at every rung, [T]: 0 at the prior, Lambda at the posterior (Syed et al., 2021).

    Args:
      swap_acceptance: [T-1] mean acceptance of adjacent pairs, a JAX or NumPy array.
    """
    xp = swap_acceptance.__array_namespace__()
    return xp.concatenate([xp.zeros((1,), swap_acceptance.dtype), xp.cumsum(1 - swap_acceptance)])


def even_ladder(betas: Values, swap_acceptance: Values, num_temperatures: int) -> Values:
    """A ladder with equal increments of the barrier, so that all pairs swap equally often.

    A pair that was never rejected counts as a small part of the barrier, which keeps its rungs from drifting apart.

    Args:
      betas: [T], T >= 2.
      swap_acceptance: [T-1], measured on `betas`.
      num_temperatures: rungs of the new ladder, which keeps the ends of `betas`.
    """
    xp = betas.__array_namespace__()
    barrier = communication_barrier(xp.minimum(swap_acceptance, 1 - 1e-3))
    even = xp.interp(xp.linspace(0, barrier[-1], num_temperatures), barrier, betas)
    return xp.concatenate([betas[:1], even[1:-1], betas[-1:]])


def adapted_ladder(betas: Array, swap_acceptance: Array, damping: Array | float) -> Array:
    """(1 - damping) betas + damping `even_ladder`; increasing, since both are.

    Args:
      betas: [T].
      swap_acceptance: [T-1], measured on `betas`.
      damping: fraction of the way to equal increments, in 0..1.
    """
    num = betas.shape[0]
    return betas if num < 3 else (1 - damping) * betas + damping * even_ladder(betas, swap_acceptance, num)
