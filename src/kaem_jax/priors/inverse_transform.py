"""CDF, density and quantile of tabulated densities, from the polynomials of panels (docs/method.md, section 4).

By default, values [..., *L] match the table's densities [*L] one by one. With `row` [...], each value [...] belongs to
the density with that index in the flattened [*L].
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

from kaem_jax.jax_utils.placement import is_spread
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.cdf_table import NUM_NODES, CdfTable

_NEWTON_STEPS = 8
_LARGEST = 12.0  # deviations
_MAX_VALUES_AT_ONCE = 2**19  # bounds the memory of the search's intermediate arrays: about fifteen floats per value


def cdf(base: BaseDensity, table: CdfTable, z: Array, row: Array | None = None) -> Array:
    """Probability below z: [..., *L] -> [..., *L]. It is 0 below and 1 above a bounded support."""
    own = functools.partial(_own, row=row)
    first, last = table.edges[0], table.edges[-1]
    rows, panel, t, _ = _locate(table, jnp.clip(z, first, last), row)
    inside = _at(table.lower, rows, panel) + _cumulative(_polynomial_at(table, rows, panel), t)
    if not base.has_tails:
        return jnp.clip(inside, 0, 1)  # sums may round to a little more
    params = jax.tree.map(own, table.base)
    low, high = jnp.minimum(z, first), jnp.maximum(z, last)  # keeps the branch that is not taken finite
    below = own(table.lower[..., 0]) * jnp.exp(base.log_cdf(params, low) - base.log_cdf(params, first))
    above = own(table.upper[..., -1]) * jnp.exp(base.log_survival(params, high) - base.log_survival(params, last))
    return jnp.where(z < first, below, jnp.where(z > last, 1 - above, inside))


def density(base: BaseDensity, table: CdfTable, z: Array, row: Array | None = None) -> Array:
    """The slope of `cdf` at z: [..., *L] -> [..., *L]."""
    own = functools.partial(_own, row=row)
    first, last = table.edges[0], table.edges[-1]
    rows, panel, t, width = _locate(table, jnp.clip(z, first, last), row)
    inside = _slope(_polynomial_at(table, rows, panel), t) / width
    if not base.has_tails:
        return jnp.where((z < first) | (z > last), 0, inside)
    params = jax.tree.map(own, table.base)
    low, high = jnp.minimum(z, first), jnp.maximum(z, last)  # keeps the branch that is not taken finite
    below = own(table.lower[..., 0]) * jnp.exp(base.log_prob(params, low) - base.log_cdf(params, first))
    above = own(table.upper[..., -1]) * jnp.exp(base.log_prob(params, high) - base.log_survival(params, last))
    return jnp.where(z < first, below, jnp.where(z > last, above, inside))


def quantile(base: BaseDensity, table: CdfTable, u: Array, row: Array | None = None) -> Array:
    """The point with probability u below it: [..., *L] -> [..., *L], in the dtype of `u`.

    u = 0 and u = 1 give the ends of the support. Differentiable in u and in the leaves of the table by the implicit
    rule dz = (du - dF(z)) / p(z), with the table's own slope as p.
    """
    return _invert(base, table, row, u, 1 - u)


def normal_quantile(base: BaseDensity, table: CdfTable, epsilon: Array) -> Array:
    """F^-1(Phi(epsilon)): standard normal coordinates to points, [..., *L] -> [..., *L], differentiable.

    The upper half goes through Phi(-epsilon): a float32 Phi rounds to 1 at epsilon = 5.5. Epsilon is clipped to
    [-12, 12]: near 13 its tail probability rounds to 0, whose quantile is infinite, and heavy-tailed proposals reach
    such points.
    """
    epsilon = jnp.clip(epsilon, -_LARGEST, _LARGEST)
    return _invert(base, table, None, special.ndtr(epsilon), special.ndtr(-epsilon))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _invert(base: BaseDensity, table: CdfTable, row: Array | None, below: Array, above: Array) -> Array:
    """The point with probability `below` below it and `above` above it; the smaller of the two must be exact."""
    event_shape = table.lower.shape[:-1] if row is None else ()
    num_rows = below.size // math.prod(event_shape)
    num_chunks = -(-below.size // _MAX_VALUES_AT_ONCE)
    # No chunks on a mesh: they would cut across its devices, and each device has only its share of the values.
    if below.size == 0 or num_chunks == 1 or below.ndim == len(event_shape) or is_spread():
        return _invert_at_once(base, table, row, below, above)
    size = -(-num_rows // num_chunks)
    padding = [(0, num_chunks * size - num_rows)] + [(0, 0)] * len(event_shape)

    def chunks(values: Array, fill: float) -> Array:
        padded = jnp.pad(values.reshape(num_rows, *event_shape), padding, constant_values=fill)
        return padded.reshape(num_chunks, size, *event_shape)

    parts = (None if row is None else chunks(row, 0), chunks(below, 0.5), chunks(above, 0.5))
    z = jax.lax.map(lambda part: _invert_at_once(base, table, *part), parts)
    return z.reshape(-1, *event_shape)[:num_rows].reshape(below.shape)


def _invert_at_once(base: BaseDensity, table: CdfTable, row: Array | None, below: Array, above: Array) -> Array:
    own = functools.partial(_own, row=row)
    num_panels = table.edges.size - 1
    num_rows = math.prod(table.lower.shape[:-1])
    rows = _rows(table) if row is None else row
    # Probabilities from the nearer end keep their digits: `tails` has all densities from below, then all from above.
    from_above = below > above
    tails = jnp.stack([table.lower, table.upper[..., ::-1]])
    tail = rows + jnp.where(from_above, num_rows, 0)
    inside = jnp.maximum(jnp.minimum(below, above), _at(tails, tail, 0))  # the tails have their own formula below
    steps = _search(tails, tail, inside)  # panels from the nearer end
    panel = jnp.where(from_above, num_panels - 1 - steps, steps)
    rest = inside - _at(tails, tail, steps)

    polynomial = _polynomial_at(table, rows, panel)
    target = jnp.where(from_above, jnp.sum(polynomial, axis=-1) - rest, rest)
    left, right = table.edges[panel], table.edges[panel + 1]
    z = left + (right - left) * _solve(polynomial, target)

    if not base.has_tails:
        return z
    first, last = table.edges[0], table.edges[-1]
    lower_tail, upper_tail = own(table.lower[..., 0]), own(table.upper[..., -1])
    params = jax.tree.map(own, table.base)
    # A tail may hold more than half of the mass, so the tail is chosen by its own probability, not by the nearer end.
    low_share = jnp.exp(base.log_cdf(params, first)) / lower_tail
    high_share = jnp.exp(base.log_survival(params, last)) / upper_tail
    low = base.quantile(params, below * low_share)
    high = base.upper_quantile(params, above * high_share)
    return jnp.where(below < lower_tail, low, jnp.where(above < upper_tail, high, z))


@_invert.defjvp
def _invert_jvp(base, primals, tangents):
    table, row, below, above = primals
    table_dot, _, below_dot, _ = tangents  # `above` is 1 - below: its tangent adds nothing
    z = _invert(base, table, row, below, above)
    _, probability_dot = jax.jvp(lambda t: cdf(base, t, z, row), (table,), (table_dot,))
    slope = jnp.maximum(density(base, table, z, row), jnp.finfo(z.dtype).tiny)
    return z, (below_dot - probability_dot) / slope


def _rows(table: CdfTable) -> Array:
    """The row [*L] of each density in the flattened leaves."""
    shape = table.lower.shape[:-1]
    return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)


def _own(values: Array, row: Array | None) -> Array:
    """The entries of `values` [*L] at the flattened indices `row`, or all of them if it is None."""
    return values if row is None else values.reshape(-1)[row]


def _at(leaf: Array, row: Array, column: Array | int) -> Array:
    """leaf[row, column] of a leaf [*L, M], with [*L] flattened; the table is not copied."""
    return leaf.reshape(-1)[row * leaf.shape[-1] + column]


def _search(leaf: Array, row: Array, x: Array) -> Array:
    """The last panel j with leaf[row, j] <= x, by bisection; panels without mass are skipped."""
    num_panels = leaf.shape[-1] - 1

    def halve(bounds, _):
        low, high = bounds
        middle = (low + high) // 2
        passed = _at(leaf, row, middle) <= x
        return (jnp.where(passed, middle, low), jnp.where(passed, high, middle)), None

    low = jnp.zeros_like(row)
    bounds = (low, low + num_panels)
    (low, _), _ = jax.lax.scan(halve, bounds, length=max(1, math.ceil(math.log2(num_panels))))
    return low


def _locate(table: CdfTable, z: Array, row: Array | None) -> tuple[Array, Array, Array, Array]:
    """Row, panel, relative position in the panel and panel width of points inside the domain."""
    row = _rows(table) if row is None else row
    panel = jnp.clip(jnp.searchsorted(table.edges, z, side="right") - 1, 0, table.edges.size - 2)
    left, right = table.edges[panel], table.edges[panel + 1]
    return row, panel, (z - left) / (right - left), right - left


def _polynomial_at(table: CdfTable, row: Array, panel: Array) -> Array:
    """The polynomial [..., K] of each panel."""
    return table.polynomial.reshape(-1, NUM_NODES)[row * table.polynomial.shape[-2] + panel]


def _cumulative(polynomial: Array, t: Array) -> Array:
    value = polynomial[..., -1]
    for k in reversed(range(NUM_NODES - 1)):
        value = value * t + polynomial[..., k]
    return value * t


def _slope(polynomial: Array, t: Array) -> Array:
    value = NUM_NODES * polynomial[..., -1]
    for k in reversed(range(NUM_NODES - 1)):
        value = value * t + (k + 1) * polynomial[..., k]
    return value


def _solve(polynomial: Array, target: Array) -> Array:
    """The t in [0, 1] where the cumulative polynomial reaches `target`, by bracketed Newton steps."""
    tiny = jnp.finfo(target.dtype).tiny
    mass = jnp.maximum(jnp.sum(polynomial, axis=-1), tiny)
    share = jnp.clip(target / mass, 0, 1)
    # First guess: the root for a density that is linear between its values at the panel's ends.
    at_left = jnp.maximum(polynomial[..., 0], 0)
    at_right = jnp.maximum(_slope(polynomial, jnp.ones_like(target)), 0)
    sum_of_ends = jnp.maximum(at_left + at_right, tiny)
    root = jnp.sqrt(at_left**2 + share * (at_right**2 - at_left**2))
    guess = share * sum_of_ends / jnp.maximum(at_left + root, tiny)

    def newton(carry, _):
        t, low, high = carry
        error = _cumulative(polynomial, t) - target
        low, high = jnp.where(error < 0, t, low), jnp.where(error < 0, high, t)
        step = t - error / jnp.maximum(_slope(polynomial, t), tiny)
        # A step that rounding moves just outside the bracket is clamped; a step far outside is replaced by bisection.
        slack = 1e-3 * (high - low)
        escaped = (step < low - slack) | (step > high + slack)
        return (jnp.where(escaped, (low + high) / 2, jnp.clip(step, low, high)), low, high), None

    start = (jnp.clip(guess, 0, 1), jnp.zeros_like(target), jnp.ones_like(target))
    (t, _, _), _ = jax.lax.scan(newton, start, length=_NEWTON_STEPS)
    return t
