"""Radial basis functions centred at the breakpoints, with a trainable width."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis

_MIN_WIDTH = 0.5  # in units of the spacing: narrower bumps would not overlap, nor would the panels resolve them


class _Bumps(Basis):
    """Bumps of width tau at the positions g = 0..N: tau = 0.5 + softplus(scale), which starts at 1."""

    panels_per_interval: ClassVar[int] = 10

    def num_functions(self, num_intervals: int) -> int:
        return num_intervals + 1

    def init_scale(self, shape: tuple[int, ...], num_intervals: int) -> Array:
        return jnp.full(shape, math.log(math.expm1(1.0 - _MIN_WIDTH)))

    def _distance(self, u: Array, num_intervals: int, scale: Any) -> Array:
        centre = jnp.arange(num_intervals + 1, dtype=u.dtype)
        return (u[..., None] - centre) / (_MIN_WIDTH + jax.nn.softplus(scale[..., None]))


@dataclasses.dataclass(frozen=True)
class RadialBasis(_Bumps):
    """Gaussian bumps exp(-t^2 / 2), t = (u - g) / tau."""

    def evaluate(self, u: Array, num_intervals: int, scale: Array | None) -> Array:
        return jnp.exp(-0.5 * jnp.square(self._distance(u, num_intervals, scale)))


@dataclasses.dataclass(frozen=True)
class ReflectionalSwitch(_Bumps):
    """RSWAF bumps 1 - tanh(t)^2, t = (u - g) / tau."""

    def evaluate(self, u: Array, num_intervals: int, scale: Array | None) -> Array:
        # 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |t|): no cancellation in the flanks, no overflow.
        decay = jnp.exp(-2 * jnp.abs(self._distance(u, num_intervals, scale)))
        return 4 * decay / jnp.square(1 + decay)
