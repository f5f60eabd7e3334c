"""B-splines of degree 1 to 5 on even knots, closed at both ends of the domain."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bases.base import Basis
from kaem_jax.settings import setting

# Panels per interval that keep the quantile error at float32 level for energies that swing by 20 nats between
# neighbouring breakpoints (docs/decisions/quadrature.md). Low degrees have kinks in f and steep straight flanks.
_PANELS_PER_INTERVAL = {1: 20, 2: 10, 3: 10, 4: 10, 5: 10}


@dataclasses.dataclass(frozen=True)
class BSpline(Basis):
    """B-splines by the local Cox-de Boor recursion, which computes the degree + 1 non-zero terms only.

    Outside the domain a spline keeps its value at the nearer end.

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
        span, _, values = _nonzero(u, num_intervals, self.degree)
        # A comparison with the feature index vectorises where a scatter does not.
        index = jnp.arange(self.num_functions(num_intervals), dtype=jnp.int32) - span[..., None]
        return sum(
            (jnp.where(index == j, value[..., None], 0) for j, value in enumerate(values)), jnp.zeros((), u.dtype)
        )

    def combine(self, u: Array, num_intervals: int, scale: Array | None, coefficients: Array) -> Array:
        def by_features(u: Array, coefficients: Array) -> Array:
            return jnp.sum(self.evaluate(u, num_intervals) * coefficients, axis=-1)

        # A TPU gathers and adds the few non-zero terms one after another: all terms together are faster there.
        few = functools.partial(_combine, degree=self.degree)
        return jax.lax.platform_dependent(u, coefficients, tpu=by_features, default=few)


def _nonzero(u: Array, num_intervals: int, degree: int) -> tuple[Array, list[Array], list[Array]]:
    """The interval of each position, int32, and the non-zero splines there of degree - 1 and of `degree`.

    The interval is the index of the first of them. Piegl & Tiller, The NURBS Book, algorithm A2.2, for integer knots.
    """
    u = jnp.clip(u, 0, num_intervals)
    span = jnp.minimum(jnp.floor(u), num_intervals - 1)  # the last interval is closed on the right
    t = u - span
    lower = [jnp.ones_like(t)]
    for k in range(1, degree):
        lower = _raised(lower, t, k)
    return span.astype(jnp.int32), lower, _raised(lower, t, degree)


def _raised(values: list[Array], t: Array, degree: int) -> list[Array]:
    """The non-zero splines of a degree, from those of one degree less."""
    raised, carry = [], jnp.zeros_like(t)
    for r, value in enumerate(values):
        share = value / degree
        raised.append(carry + (r + 1 - t) * share)
        carry = (t + (degree - 1 - r)) * share
    return [*raised, carry]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _combine(u: Array, coefficients: Array, degree: int) -> Array:
    return _value_and_slope(u, coefficients, degree)[0]


@_combine.defjvp
def _derivative(degree: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Twice as fast as differentiating the sum: the gradient adds windows of coefficients, not single ones."""
    (u, coefficients), (du, changes) = primals, tangents
    value, slope, features, first = _value_and_slope(u, coefficients, degree)
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(first.ndim,), collapsed_slice_dims=(), start_index_map=(0,))
    windows = jax.lax.gather(
        changes.reshape(-1), first[..., None], numbers, (degree + 1,), mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )
    return value, slope * du + sum(feature * windows[..., j] for j, feature in enumerate(features))


def _value_and_slope(u: Array, coefficients: Array, degree: int) -> tuple[Array, Array, list[Array], Array]:
    """Splines at u and their derivatives, the non-zero features, and the index of the first one's coefficient."""
    lead, num_functions = coefficients.shape[:-1], coefficients.shape[-1]
    num_intervals = num_functions - degree
    span, lower, features = _nonzero(u, num_intervals, degree)
    rows = jnp.arange(math.prod(lead), dtype=jnp.int32).reshape(lead)
    first, flat = rows * num_functions + span, coefficients.reshape(-1)
    own = [flat[first + j] for j in range(degree + 1)]
    value = sum((feature * c for feature, c in zip(features, own, strict=True)), jnp.zeros((), u.dtype))
    is_inside = (u >= 0) & (u <= num_intervals)  # beyond the domain the splines are constant
    slope = sum((feature * (own[j + 1] - own[j]) for j, feature in enumerate(lower)), jnp.zeros((), u.dtype))
    return value, jnp.where(is_inside, slope, 0), features, first
