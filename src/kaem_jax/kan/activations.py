"""Base activations of a function bank, with the points where they are not smooth."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["ACTIVATIONS", "KINKS", "activation_function"]

ACTIVATIONS: dict[str, Callable[[Array], Array] | None] = {
    "none": None,
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "hard_swish": jax.nn.hard_swish,
}

# Quadrature panels must not straddle these: Gauss-Legendre is spectral only where the integrand is smooth.
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "celu": (0.0,),
    "hard_swish": (-3.0, 3.0),
}


def activation_function(name: str) -> Callable[[Array], Array]:
    """The activation `name`; `none` is not a function and is refused like an unknown name.

    Raises:
      ValueError: `name` names no function.
    """
    function = ACTIVATIONS.get(name)
    if function is None:
        allowed = ", ".join(sorted(set(ACTIVATIONS) - {"none"}))
        raise ValueError(f"activation={name!r} is not known; allowed: {allowed}")
    return function
