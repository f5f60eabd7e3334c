"""Radial basis functions centred at the breakpoints, with a trainable width."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis

__all__ = ["RadialBasis", "ReflectionalSwitch"]

_MIN_WIDTH = 0.5  # in units of the spacing: narrower bumps would not overlap, nor would the panels resolve them


class _Bumps(Basis):
    """Bumps of width h_g tau at the breakpoints c_g: tau = 0.5 + softplus(scale), which starts at 1.

    h_g is the spacing around c_g, so that bumps follow an uneven grid; at least a tenth of the mean spacing, so that
    coinciding breakpoints keep a width.
    """

    panels_per_interval: ClassVar[int] = 10

    def num_functions(self, num_intervals: int) -> int:
        return num_intervals + 1

    def init_scale(self, grid: Array) -> Array:
        return jnp.full_like(grid[..., 0], math.log(math.expm1(1.0 - _MIN_WIDTH)))

    def _distance(self, x: Array, grid: Array, scale: Array | None) -> Array:
        """(x - c_g) / (h_g tau), [..., *L, G]."""
        assert scale is not None
        gaps = jnp.diff(grid)
        around = jnp.concatenate([gaps[..., :1], (gaps[..., 1:] + gaps[..., :-1]) / 2, gaps[..., -1:]], axis=-1)
        spacing = jnp.maximum(around, 0.1 * jnp.mean(gaps, axis=-1, keepdims=True))
        return (x[..., None] - grid) / (spacing * (_MIN_WIDTH + jax.nn.softplus(scale[..., None])))


@dataclasses.dataclass(frozen=True)
class RadialBasis(_Bumps):
    """Gaussian bumps exp(-t^2 / 2), t = (x - c_g) / (h_g tau)."""

    def evaluate(self, x: Array, grid: Array, scale: Array | None) -> Array:
        return jnp.exp(-0.5 * jnp.square(self._distance(x, grid, scale)))


@dataclasses.dataclass(frozen=True)
class ReflectionalSwitch(_Bumps):
    """RSWAF bumps 1 - tanh(t)^2, t = (x - c_g) / (h_g tau)."""

    def evaluate(self, x: Array, grid: Array, scale: Array | None) -> Array:
        # 1 - tanh^2 = 4 e / (1 + e)^2 with e = exp(-2 |t|): no cancellation in the flanks, no overflow.
        decay = jnp.exp(-2 * jnp.abs(self._distance(x, grid, scale)))
        return 4 * decay / jnp.square(1 + decay)
