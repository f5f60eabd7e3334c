"""Bases of cosines: Chebyshev polynomials of a squashed coordinate, and a Fourier series."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis

_MIN_EXCESS = 0.05  # keeps arccos away from its vertical tangent at 1
_MAX_FREQUENCY = 1.0  # bounds tau, so that the panels resolve the fastest feature whatever is learned


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


@dataclasses.dataclass(frozen=True)
class Fourier(Basis):
    """cos(2 pi tau g y) and sin(2 pi tau g y) for g = 1..N/2, y = u / N.

    tau = sigmoid(scale) is trainable and starts at 1/2: half a period, so that nothing forces f(a) = f(b). There is no
    constant feature (the normaliser would cancel it) and no dead sine of frequency 0.
    """

    panels_per_interval: ClassVar[int] = 20

    def num_functions(self, num_intervals: int) -> int:
        return 2 * self._num_frequencies(num_intervals)

    def init_scale(self, shape: tuple[int, ...], num_intervals: int) -> Array:
        return jnp.zeros(shape)

    def evaluate(self, u: Array, num_intervals: int, scale: Any) -> Array:
        frequency = 2 * math.pi * _MAX_FREQUENCY * jax.nn.sigmoid(scale)
        count = self._num_frequencies(num_intervals)
        phase = (frequency * (u / num_intervals))[..., None] * jnp.arange(1, count + 1, dtype=u.dtype)
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)

    @staticmethod
    def _num_frequencies(num_intervals: int) -> int:
        return max(1, num_intervals // 2)
