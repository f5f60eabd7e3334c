"""The interface of a basis family."""

import abc

import jax.numpy as jnp
from jax import Array

from kaem_jax.settings import Settings

__all__ = ["Basis"]


class Basis(Settings, abc.ABC):
    """A family of basis functions phi_1..phi_G on a grid of breakpoints.

    A basis is static and hashable and holds no arrays. The grid is the sequence of breakpoints
    a = t_0 <= t_1 <= ... <= t_N = b; its ends are the domain. A family must define `panels_per_interval`,
    `num_functions` and `evaluate`; one with local support also overrides the three methods after these.
    """

    @property
    @abc.abstractmethod
    def panels_per_interval(self) -> int:
        """Quadrature panels between two breakpoints that resolve exp(f) to float32 accuracy."""

    @abc.abstractmethod
    def num_functions(self, num_intervals: int) -> int:
        """Number G of basis functions on a grid of `num_intervals` intervals."""

    def init_scale(self, grid: Array) -> Array | None:
        """Initial trainable scale (unconstrained) for grids [*L, N + 1]: [*L, ...], None where the family has none."""
        return None

    @abc.abstractmethod
    def evaluate(self, x: Array, grid: Array, scale: Array | None) -> Array:
        """Evaluates every basis function.

        Args:
          x: [..., *L] points.
          grid: [*L, N + 1] breakpoints, one sequence for each of the trailing axes L of `x`.
          scale: [*L, ...] unconstrained trainable scale as `init_scale` gives it, or None.

        Returns:
          [..., *L, G] values, of the dtype of `x`.
        """

    def combine(self, x: Array, grid: Array, scale: Array | None, coefficients: Array) -> Array:
        """sum_g c_g phi_g(x) at points [..., *L] for coefficients [*L, G]: [..., *L]."""
        return jnp.sum(self.evaluate(x, grid, scale) * coefficients, axis=-1)

    def combine_on_intervals(self, x: Array, grid: Array, scale: Array | None, coefficients: Array) -> Array:
        """sum_g c_g phi_g(x) at points sorted by interval.

        Args:
          x: [*L, N, R], R points in each of the N closed intervals of the grid.
          grid: [*L, N + 1].
          scale: [*L, ...] or None.
          coefficients: [*L, G].

        Returns:
          [*L, N, R].
        """
        return jnp.sum(self._evaluate_on_intervals(x, grid, scale) * coefficients[..., None, None, :], axis=-1)

    def terms_on_intervals(
        self, x: Array, grid: Array, scale: Array | None, coefficients: Array
    ) -> tuple[Array, Array]:
        """Two arrays whose product, summed over J, gives the sums of P functions that share points and grid.

        Args:
          x: [Q, N, R], sorted by interval.
          grid: [Q, N + 1].
          scale: [Q, ...] or None.
          coefficients: [Q, P, G].

        Returns:
          Values [Q, N, R, J] of basis functions, and their coefficients [Q, P, N, J], or [Q, P, 1, J] if they are the
          same on all intervals.
        """
        return self._evaluate_on_intervals(x, grid, scale), coefficients[:, :, None]

    def _evaluate_on_intervals(self, x: Array, grid: Array, scale: Array | None) -> Array:
        """Every basis function at points [*L, N, R] sorted by interval: [*L, N, R, G]."""
        wide = None if scale is None else jnp.expand_dims(scale, (grid.ndim - 1, grid.ndim))
        return self.evaluate(x, grid[..., None, None, :], wide)
