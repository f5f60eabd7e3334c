"""The interface of a basis family."""

import abc

import jax.numpy as jnp
from jax import Array

__all__ = ["Basis"]


class Basis(abc.ABC):
    """A family of basis functions phi_1..phi_G on a grid of breakpoints.

    A basis is static and hashable and holds no arrays. The grid is the sequence of breakpoints
    a = t_0 <= t_1 <= ... <= t_N = b; its ends are the domain. A family must define `evaluate`; one with local support
    overrides the two sums below.
    """

    @property
    @abc.abstractmethod
    def panels_per_interval(self) -> int:
        """Quadrature panels between two breakpoints that resolve exp(f) to float32 accuracy."""

    @property
    def follows_grid(self) -> bool:
        """Whether the breakpoints inside the domain matter, so that moving them to where the data are is worth it."""
        return False

    @abc.abstractmethod
    def num_functions(self, num_intervals: int) -> int:
        """Number G of basis functions on a grid of `num_intervals` intervals."""

    def init_scale(self, grid: Array) -> Array | None:
        """Initial trainable scale (unconstrained) for grids [*L, N + 1]: [*L, ...], None where the family has none."""
        del grid
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
          x: [Q, P', N, R], R points in each of the N closed intervals of the grid.
          grid: [Q, P', N + 1].
          scale: [Q, P', ...] or None.
          coefficients: [Q, P, G], where P' is P or 1.

        Returns:
          [Q, P, N, R].
        """
        wide = None if scale is None else jnp.expand_dims(scale, (2, 3))
        values = self.evaluate(x, grid[..., None, None, :], wide)
        if x.shape[1] == 1:
            return jnp.einsum("qnrg,qpg->qpnr", values[:, 0], coefficients, precision="highest")
        return jnp.sum(values * coefficients[..., None, None, :], axis=-1)
