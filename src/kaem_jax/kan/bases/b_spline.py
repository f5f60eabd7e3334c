"""B-splines of degree 1 to 5 on arbitrary breakpoints, closed at both ends of the domain."""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable

import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis
from kaem_jax.settings import setting

__all__ = ["BSpline", "extended_knots"]

# Panels per interval that keep the quantile error at float32 level for energies that swing by 20 nats between
# neighbouring breakpoints (docs/decisions/quadrature.md). Low degrees have kinks in f and steep straight flanks.
_PANELS_PER_INTERVAL = {1: 20, 2: 10, 3: 10, 4: 10, 5: 10}


def extended_knots(grid: Array, degree: int) -> Array:
    """Continues breakpoints [..., N + 1] by `degree` knots on either side, with the spacing of the outermost interval.

    Returns:
      [..., N + 1 + 2 * degree] knots.
    """
    steps = jnp.arange(1, degree + 1, dtype=grid.dtype)
    first, last = grid[..., :1], grid[..., -1:]
    below = first - steps[::-1] * (grid[..., 1:2] - first)
    above = last + steps * (last - grid[..., -2:-1])
    return jnp.concatenate([below, grid, above], axis=-1)


@dataclasses.dataclass(frozen=True)
class BSpline(Basis):
    """B-splines by the local Cox-de Boor recursion: only the degree + 1 non-zero terms are computed.

    Outside the domain a feature keeps the value it has at the nearer end.

    Attributes:
      degree: polynomial degree, 1 to 5.
    """

    degree: int = setting(3, low=1, high=5)

    @property
    def panels_per_interval(self) -> int:
        return _PANELS_PER_INTERVAL[self.degree]

    def num_functions(self, num_intervals: int) -> int:
        return num_intervals + self.degree

    def evaluate(self, x: Array, grid: Array, scale: Array | None = None) -> Array:
        span, values = self._at_points(x, grid)
        return _among_zeros(values, span, self.num_functions(grid.shape[-1] - 1))

    def combine(self, x: Array, grid: Array, scale: Array | None, coefficients: Array) -> Array:
        span, values = self._at_points(x, grid)
        start = _rows(grid) * coefficients.shape[-1] + span
        flat = coefficients.reshape(-1)
        return _sum(value * flat[start + j] for j, value in enumerate(values))

    def combine_on_intervals(self, x: Array, grid: Array, scale: Array | None, coefficients: Array) -> Array:
        num_intervals = grid.shape[-1] - 1
        values = self._on_intervals(x, grid)
        return _sum(value * _window(coefficients, j, num_intervals) for j, value in enumerate(values))

    def terms_on_intervals(
        self, x: Array, grid: Array, scale: Array | None, coefficients: Array
    ) -> tuple[Array, Array]:
        values = self._on_intervals(x, grid)
        num_intervals = grid.shape[-1] - 1
        # One product for each row, of many zeros, is faster than N small ones where many functions share the values.
        if coefficients.shape[1] >= 4 * num_intervals:
            span = jnp.arange(num_intervals, dtype=jnp.int32)[:, None]
            return _among_zeros(values, span, coefficients.shape[-1]), coefficients[:, :, None]
        windows = [_window(coefficients, j, num_intervals) for j in range(self.degree + 1)]
        return jnp.stack(values, axis=-1), jnp.concatenate(windows, axis=-1)

    def _on_intervals(self, x: Array, grid: Array) -> list[Array]:
        """The values of the non-zero features at points [*L, N, R] sorted by interval."""
        knots = extended_knots(grid, self.degree)
        num_intervals = grid.shape[-1] - 1
        left = [x - _window(knots, self.degree - j, num_intervals) for j in range(self.degree)]
        right = [_window(knots, self.degree + 1 + j, num_intervals) - x for j in range(self.degree)]
        return _nonzero(left, right)

    def _at_points(self, x: Array, grid: Array) -> tuple[Array, list[Array]]:
        """Index of the first non-zero feature at each point, and the values of all degree + 1 of them."""
        x = jnp.clip(x, grid[..., 0], grid[..., -1])
        # The non-empty interval [t_s, t_{s+1}] that holds x; the last one is closed on the right.
        inner = grid[..., 1:-1]
        span = jnp.sum((inner <= x[..., None]) & (inner < grid[..., -1:]), axis=-1, dtype=jnp.int32)
        knots = extended_knots(grid, self.degree)
        start = _rows(grid) * knots.shape[-1] + span + self.degree  # the position of t_s in the flat knots
        flat = knots.reshape(-1)
        left = [x - flat[start - j] for j in range(self.degree)]
        right = [flat[start + j + 1] - x for j in range(self.degree)]
        return span, _nonzero(left, right)


def _rows(grid: Array) -> Array:
    """The position [*L] of each grid in the flattened leading axes."""
    shape = grid.shape[:-1]
    return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)


def _window(array: Array, offset: int, num_intervals: int) -> Array:
    """The entries [..., N, 1] at one offset from each interval: a slice, where arbitrary points need a gather."""
    return array[..., offset : offset + num_intervals, None]


def _among_zeros(values: list[Array], span: Array, num_functions: int) -> Array:
    """The values [...] of features span, span + 1, ... among those of all, the others 0: [..., G]."""
    # A comparison with the feature index vectorises where a scatter does not.
    index = jnp.arange(num_functions, dtype=jnp.int32) - span[..., None]
    return _sum(jnp.where(index == j, value[..., None], 0) for j, value in enumerate(values))


def _nonzero(left: list[Array], right: list[Array]) -> list[Array]:
    """The basis functions that are non-zero on an interval (Piegl & Tiller, The NURBS Book, algorithm A2.2).

    Args:
      left: x - t_s, x - t_{s-1}, ... one for each degree.
      right: t_{s+1} - x, t_{s+2} - x, ... likewise.

    Returns:
      degree + 1 arrays. On an empty interval all but one are 0: no 0 / 0 from repeated knots.
    """
    values = [jnp.ones_like(left[0])]
    for degree in range(1, len(left) + 1):
        carry = jnp.zeros_like(left[0])
        for r in range(degree):
            width = right[r] + left[degree - 1 - r]
            share = values[r] / jnp.where(width > 0, width, 1)
            # An empty interval has one feature that is not 0, as any other interval at its left end.
            values[r] = carry + jnp.where(width > 0, right[r] * share, values[r])
            carry = left[degree - 1 - r] * share
        values.append(carry)
    return values


def _sum(terms: Iterable[Array]) -> Array:
    """The sum without the start 0 of the built-in one, which no type of array is."""
    return functools.reduce(operator.add, terms)
