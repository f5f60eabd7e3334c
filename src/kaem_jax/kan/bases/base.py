"""The interface of a basis family."""

import abc

import jax.numpy as jnp
from jax import Array

from kaem_jax.settings import Settings


class Basis(Settings, abc.ABC):
    """A family of basis functions phi_1..phi_G of a position u on N even intervals; the domain is 0 <= u <= N.

    Static and hashable. A family defines `panels_per_interval`, `num_functions` and `evaluate`; one with local support
    also overrides `combine`.
    """

    @property
    @abc.abstractmethod
    def panels_per_interval(self) -> int:
        """Quadrature panels per interval that resolve exp(f) to float32 accuracy."""

    @abc.abstractmethod
    def num_functions(self, num_intervals: int) -> int:
        """G, the number of basis functions on `num_intervals` intervals."""

    def init_scale(self, shape: tuple[int, ...], num_intervals: int) -> Array | None:
        """Initial trainable scale (unconstrained), [*shape, ...]; None for a family without one."""
        return None

    @abc.abstractmethod
    def evaluate(self, u: Array, num_intervals: int, scale: Array | None) -> Array:
        """Every basis function at positions u [..., *L]: [..., *L, G], in the dtype of `u`.

        Args:
          num_intervals: N.
          scale: [*L, ...], as `init_scale` gives it, or None.
        """

    def combine(self, u: Array, num_intervals: int, scale: Array | None, coefficients: Array) -> Array:
        """Values sum_g c_g phi_g(u) at positions [..., *L] for coefficients [*L, G]: [..., *L]."""
        return jnp.sum(self.evaluate(u, num_intervals, scale) * coefficients, axis=-1)
