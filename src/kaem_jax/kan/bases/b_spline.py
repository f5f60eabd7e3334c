"""B-splines of degree 1 to 5 on even knots, closed at both ends of the domain."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis
from kaem_jax.settings import setting

__all__ = ["BSpline"]

# Panels per interval that keep the quantile error at float32 level for energies that swing by 20 nats between
# neighbouring breakpoints (docs/decisions/quadrature.md). Low degrees have kinks in f and steep straight flanks.
_PANELS_PER_INTERVAL = {1: 20, 2: 10, 3: 10, 4: 10, 5: 10}


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

    def evaluate(self, u: Array, num_intervals: int, scale: Array | None = None) -> Array:
        span, values = self._nonzero(u, num_intervals)
        # A comparison with the feature index vectorises where a scatter does not.
        index = jnp.arange(self.num_functions(num_intervals), dtype=jnp.int32) - span[..., None]
        return sum(
            (jnp.where(index == j, value[..., None], 0) for j, value in enumerate(values)), jnp.zeros((), u.dtype)
        )

    def combine(self, u: Array, num_intervals: int, scale: Array | None, coefficients: Array) -> Array:
        span, values = self._nonzero(u, num_intervals)
        lead, num_functions = coefficients.shape[:-1], coefficients.shape[-1]
        rows = jnp.arange(math.prod(lead), dtype=jnp.int32).reshape(lead)
        start, flat = rows * num_functions + span, coefficients.reshape(-1)
        return sum((value * flat[start + j] for j, value in enumerate(values)), jnp.zeros((), u.dtype))

    def _nonzero(self, u: Array, num_intervals: int) -> tuple[Array, list[Array]]:
        """The interval of each position (the index of its first non-zero feature), and its degree + 1 non-zero values.

        Piegl & Tiller, The NURBS Book, algorithm A2.2, for knots at the integers.
        """
        u = jnp.clip(u, 0, num_intervals)
        span = jnp.minimum(jnp.floor(u), num_intervals - 1)  # the last interval is closed on the right
        t = u - span
        values = [jnp.ones_like(t)]
        for degree in range(1, self.degree + 1):
            carry = jnp.zeros_like(t)
            for r in range(degree):
                share = values[r] / degree
                values[r] = carry + (r + 1 - t) * share
                carry = (t + (degree - 1 - r)) * share
            values.append(carry)
        return span.astype(jnp.int32), values
