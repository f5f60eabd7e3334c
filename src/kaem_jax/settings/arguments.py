"""Converts callers' arguments to one form, or refuses them."""

import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Shape = int | Iterable[int]


def as_shape(shape: Shape) -> tuple[int, ...]:
    """A shape from an integer, a list or a tuple; JAX refuses other entries."""
    return tuple(shape) if isinstance(shape, Iterable) else (shape,)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises a ValueError unless the argument `name` is one of the allowed words."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; allowed: {', '.join(allowed)}")


def check_integer(name: str, value: Any, low: int) -> None:
    """Raises a ValueError unless the argument `name` is an integer of at least `low`."""
    if not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name}={value!r} must be an integer of at least {low}")


def check_key(key: Any) -> None:
    """Raises a ValueError unless `key` is a PRNG key, such as jax.random.key(0)."""
    dtype = getattr(key, "dtype", None)
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not is_typed and not (dtype == jnp.uint32 and jnp.shape(key)[-1:] == (2,)):  # an old-style key
        raise ValueError(f"key={key!r} is not a PRNG key: give jax.random.key(0), first of all arguments")


def check_model(model: Any) -> None:
    """Raises a ValueError unless `model` is a model, for instance if arguments were swapped."""
    if not hasattr(model, "log_joint"):
        given = type(model).__name__
        raise ValueError(f"model={given} is not a kaem_jax.Model, which comes before its parameters")


def check_latent(values: Any, event_shape: tuple[int, ...], name: str) -> Array:
    """`values` [..., *event_shape] as an array of floats of at least 32 bits.

    Raises:
      ValueError: the last axes are not `event_shape`; JAX would broadcast them silently.
    """
    array = jnp.asarray(values)
    if array.shape[array.ndim - len(event_shape) :] != event_shape or array.ndim < len(event_shape):
        wanted = ", ".join(["...", *map(str, event_shape)])
        raise ValueError(f"{name} has shape {array.shape}; this prior takes [{wanted}]")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(float)
    return at_least_float32(array)


def at_least_float32(array: Any) -> Any:
    """Widens floats of 16 bits, in which sums of many terms lose nats; other values are unchanged."""
    dtype = jnp.result_type(array)
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(array, jnp.float32) if is_narrow else array
