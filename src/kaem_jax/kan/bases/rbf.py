"""Gaussian radial basis functions centred at the breakpoints."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.basis import Basis

__all__ = ["RadialBasis"]

_MIN_WIDTH = (
    0.5  # in units of the mean spacing: below it neighbours no longer overlap and the panels would not resolve them
)


@dataclasses.dataclass(frozen=True)
class RadialBasis(Basis):
    """exp(-(x - c_g)^2 / (2 (h tau)^2)): centres c_g at the breakpoints, h their mean spacing, tau a trainable width.

    tau = 0.5 + softplus(scale), which starts at 1.
    """

    @property
    def panels_per_interval(self) -> int:
        return 10

    def num_features(self, num_intervals: int) -> int:
        return num_intervals + 1

    def init_scale(self) -> float | None:
        return math.log(math.expm1(1.0 - _MIN_WIDTH))

    def features(self, x: Array, grid: Array, scale: Array | None) -> Array:
        assert scale is not None
        spacing = (grid[..., -1:] - grid[..., :1]) / (grid.shape[-1] - 1)
        width = spacing * (_MIN_WIDTH + jax.nn.softplus(scale[..., None]))
        return jnp.exp(-0.5 * jnp.square((x[..., None] - grid) / width))
