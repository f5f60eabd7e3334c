"""Wavelets with trainable translation and scale."""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis

_MIN_SCALE = 0.5  # in intervals, so that the panels resolve whatever is learned
_MORLET_FREQUENCY = 5.0


class _Wavelets(Basis):
    """N wavelets psi((u - b_g) / s_g), translations b_g spread over the domain, scales s_g = 0.5 + softplus(.).

    Trainable, [*L, 2, N]: the shift of b_g from the middle of interval g, and the unconstrained scale; s_g starts at 1.
    The components of a mixture share both, so each wavelet of a coordinate is computed once.
    """

    def num_functions(self, num_intervals: int) -> int:
        return num_intervals

    def init_scale(self, shape: tuple[int, ...], num_intervals: int) -> Array:
        raw = jnp.full((*shape, num_intervals), math.log(math.expm1(1.0 - _MIN_SCALE)))
        return jnp.stack([jnp.zeros_like(raw), raw], axis=-2)

    def evaluate(self, u: Array, num_intervals: int, scale: Any) -> Array:
        centre = jnp.arange(num_intervals, dtype=u.dtype) + 0.5 + scale[..., 0, :]
        return self._mother((u[..., None] - centre) / (_MIN_SCALE + jax.nn.softplus(scale[..., 1, :])))

    @abc.abstractmethod
    def _mother(self, t: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Morlet(_Wavelets):
    """(cos(5 t) - exp(-25 / 2)) exp(-t^2 / 2): the constant makes the mean zero."""

    panels_per_interval: ClassVar[int] = 40

    def _mother(self, t: Array) -> Array:
        constant = math.exp(-(_MORLET_FREQUENCY**2) / 2)
        return (jnp.cos(_MORLET_FREQUENCY * t) - constant) * jnp.exp(-0.5 * t * t)


@dataclasses.dataclass(frozen=True)
class MexicanHat(_Wavelets):
    """(1 - t^2) exp(-t^2 / 2)."""

    panels_per_interval: ClassVar[int] = 20

    def _mother(self, t: Array) -> Array:
        return (1 - t * t) * jnp.exp(-0.5 * t * t)


@dataclasses.dataclass(frozen=True)
class DerivativeOfGaussian(_Wavelets):
    """t exp(-t^2 / 2)."""

    panels_per_interval: ClassVar[int] = 20

    def _mother(self, t: Array) -> Array:
        return t * jnp.exp(-0.5 * t * t)


@dataclasses.dataclass(frozen=True)
class Shannon(_Wavelets):
    """sinc(t / 2) cos(3 pi t / 2), sinc(t) = sin(pi t) / (pi t)."""

    panels_per_interval: ClassVar[int] = 40

    def _mother(self, t: Array) -> Array:
        return jnp.sinc(t / 2) * jnp.cos(1.5 * math.pi * t)
