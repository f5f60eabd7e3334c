"""Brings callers' arguments to one form, or refuses them: shapes, words, arrays of a known width."""

import inspect
import numbers
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

__all__ = [
    "Shape",
    "as_shape",
    "at_least_float32",
    "check_choice",
    "check_integer",
    "check_latent",
    "refuse_unused",
]

Shape = int | Iterable[int]


def as_shape(shape: Shape) -> tuple[int, ...]:
    """A shape from an integer, a list or a tuple.

    Raises:
      ValueError: an entry is not an integer, or is negative.
    """
    try:
        entries = tuple(map(_as_size, shape)) if isinstance(shape, Iterable) else (_as_size(shape),)
    except TypeError:
        raise ValueError(f"shape={shape!r} must be an integer, or a list or tuple of them") from None
    if any(entry < 0 for entry in entries):
        raise ValueError(f"shape={shape!r} must not be negative")
    return entries


def _as_size(size: Any) -> Any:
    """An integer; a size that `jax.export` keeps as a symbol stays one."""
    return size if hasattr(size, "dimension_as_value") else operator.index(size)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises a ValueError where the argument `name` is none of the allowed words."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; allowed: {', '.join(allowed)}")


def check_integer(name: str, value: Any, low: int) -> None:
    """Raises a ValueError where the argument `name` is no integer, of Python or NumPy, of at least `low`."""
    if not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name}={value!r} must be an integer of at least {low}")


def refuse_unused(
    function: Callable[..., Any], given: Mapping[str, Any], options: Mapping[str, Collection[str]]
) -> None:
    """Raises a ValueError where an argument differs from its default and objects of this kind do not use it.

    Args:
      function: of which `given` are the arguments, `kind` among them.
      options: the names that each kind uses.
    """
    used = options[given["kind"]]
    for name, parameter in inspect.signature(function).parameters.items():
        if name in used or parameter.default is parameter.empty:
            continue
        if given[name] != parameter.default:
            owners = " or ".join(repr(kind) for kind, names in options.items() if name in names)
            raise ValueError(
                f"{name}={given[name]!r} is not an option of kind={given['kind']!r}, whose options are "
                f"{', '.join(used) or 'none'}: leave it out, or take kind={owners}"
            )


def check_latent(values: Any, event_shape: tuple[int, ...], name: str) -> Array:
    """`values` as an array of floats, of 32 bits at least, of the form [..., *event_shape].

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
    """An array with floats of 32 bits or more: sums of many terms lose nats in 16. Whatever is no float stays."""
    dtype = jnp.result_type(array)
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(array, jnp.float32) if is_narrow else array
