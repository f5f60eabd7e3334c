"""Chebyshev polynomials of a squashed coordinate."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis

_MIN_EXCESS = 0.05  # keeps arccos away from its vertical tangent at 1


@dataclasses.dataclass(frozen=True)
class Chebyshev(Basis):
    """cos(d arccos(tanh(y) / tau)) for degrees d = 1..N, y = 3 (2 u / N - 1), tau > 1 trainable.

    y maps the domain to [-3, 3], where tanh is not flat. tau = 1.05 + softplus(scale) starts at 1.1. The constant of
    degree 0 is left out: the normaliser would cancel it.
    """

    panels_per_interval: ClassVar[int] = 40

    def num_functions(self, num_intervals: int) -> int:
        return num_intervals

    def init_scale(self, shape: tuple[int, ...], num_intervals: int) -> Array:
        return jnp.full(shape, math.log(math.expm1(0.1 - _MIN_EXCESS)))

    def evaluate(self, u: Array, num_intervals: int, scale: Any) -> Array:
        tau = 1 + _MIN_EXCESS + jax.nn.softplus(scale)
        angle = jnp.arccos(jnp.tanh(3 * (2 * u / num_intervals - 1)) / tau)
        return jnp.cos(angle[..., None] * jnp.arange(1, num_intervals + 1, dtype=u.dtype))
