"""Base activations of a function bank, with the points where they are not smooth."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
from jax import Array

Activation = Literal[
    "identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", "selu", "celu", "hard_swish"
]  # fmt: skip
BaseActivation = Literal["none", Activation]

ACTIVATIONS: dict[str, Callable[[Array], Array] | None] = {name: getattr(jax.nn, name) for name in get_args(Activation)}
ACTIVATIONS["none"] = None

# Quadrature panels must not straddle these: Gauss-Legendre is spectral only where the integrand is smooth.
KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "celu": (0.0,),
    "hard_swish": (-3.0, 3.0),
}


def activation_function(name: Activation) -> Callable[[Array], Array]:
    """The activation `name` of a network."""
    function = ACTIVATIONS[name]
    if function is None:
        raise ValueError(f"activation={name!r} would make a network linear")
    return function
