"""Inverse temperatures 0 = beta_0 < ... < beta_{T-1} = 1 of a population of chains, both ends included."""

import jax.numpy as jnp
from jax import Array

__all__ = ["adapted_ladder", "annealed_exponent", "communication_barrier", "power_ladder"]


def power_ladder(num_temperatures: int, exponent: Array | float = 1.0) -> Array:
    """(k / (T - 1))^exponent for k = 0..T-1, [T]; one temperature is the posterior itself, [1.0].

    Exponents above 1 place more rungs near the prior, where the expected log-likelihood changes fastest.

    Raises:
      ValueError: `num_temperatures` is below 1.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures={num_temperatures} must be at least 1")
    if num_temperatures == 1:
        return jnp.ones((1,), float)
    return jnp.linspace(0, 1, num_temperatures, dtype=float) ** exponent


def annealed_exponent(step: Array, num_steps: int, num_cycles: int, first: float, last: float) -> Array:
    """The exponent at `step`: half a cosine from `first` to `last`, `num_cycles` times over `num_steps` steps."""
    cycle = num_cycles * jnp.asarray(step, float) / num_steps
    position = cycle - jnp.floor(cycle)
    return last + 0.5 * (first - last) * (1 + jnp.cos(jnp.pi * position))


def communication_barrier(swap_acceptance: Array) -> Array:
    """Cumulative barrier at every rung, [T]: 0 at the prior, Lambda at the posterior (Syed et al., 2021).

    Args:
      swap_acceptance: [T-1] mean acceptance probabilities of adjacent pairs.
    """
    return jnp.concatenate([jnp.zeros((1,), swap_acceptance.dtype), jnp.cumsum(1 - swap_acceptance)])


def adapted_ladder(betas: Array, swap_acceptance: Array, damping: Array | float) -> Array:
    """Moves rungs towards equal increments of the communication barrier, so that all pairs swap equally often.

    The new ladder is (1 - damping) betas + damping target: both increase and have the same ends, so it does too. A
    pair that was never rejected counts as a small part of the barrier, so that its rungs do not move far apart.

    Args:
      betas: [T].
      swap_acceptance: [T-1], measured on `betas`.
      damping: the fraction of the way to the target, in 0..1.
    """
    num = betas.shape[0]
    if num < 3:
        return betas
    barrier = communication_barrier(jnp.minimum(swap_acceptance, 1 - 1e-3))
    even = jnp.linspace(0, barrier[-1], num)
    target = jnp.interp(even, barrier, betas).at[0].set(betas[0]).at[-1].set(betas[-1])
    return (1 - damping) * betas + damping * target
