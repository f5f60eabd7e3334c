"""Normal distributions between bounds, which may be infinite. Equal bounds fix the value."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

_FARTHEST = 1e4  # deviations: gradients of infinite bounds would be no numbers


def log_normal_mass(mean: Array, scale: Array, low: Array, high: Array) -> Array:
    """Log of the probability between `low` and `high`, nats; for equal bounds, the log-density there."""
    is_value = low == high
    near, far = _left(mean, scale, low, high)[:2]
    log_near, log_far = special.log_ndtr(near), special.log_ndtr(jnp.where(is_value, far - 1, far))
    mass = log_near + jnp.log(-jnp.expm1(log_far - log_near))
    value = jnp.where(is_value, low, mean)
    density = -0.5 * jnp.square((value - mean) / scale) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
    return jnp.where(is_value, density, mass)


def truncated_normal(key: Array, mean: Array, scale: Array, low: Array, high: Array) -> Array:
    """A draw between the bounds, of the shape of `mean`."""
    near, far, is_flipped = _left(mean, scale, low, high)
    below, above = special.ndtr(far), special.ndtr(near)
    u = below + (above - below) * jax.random.uniform(key, mean.shape, mean.dtype)
    z = special.ndtri(u)
    return jnp.clip(mean + scale * jnp.where(is_flipped, -z, z), low, high)


def _left(mean: Array, scale: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Standardised bounds, upper first, mirrored if needed to the left, where tails keep digits; whether mirrored."""
    largest = jnp.asarray(_FARTHEST, mean.dtype)
    a = jnp.clip((jnp.clip(low, -largest, largest) - mean) / scale, -largest, largest)
    b = jnp.clip((jnp.clip(high, -largest, largest) - mean) / scale, -largest, largest)
    is_flipped = a + b > 0
    return jnp.where(is_flipped, -a, b), jnp.where(is_flipped, -b, a), is_flipped
