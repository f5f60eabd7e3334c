"""Exact tables of univariate densities: normaliser, CDF and quantile to float32 accuracy (method section 4).

A density p(z) = exp(f(z)) pi0(z) / Z is cut into M panels of the domain [a, b] on which f is smooth. On a panel,
p is interpolated at five Gauss-Legendre nodes; the quartic's antiderivative is the CDF inside the panel and its
integral, the Gauss-Legendre sum, the panel's mass. Masses are accumulated from both ends, so that the upper tail is
as exact as the lower. Outside [a, b] the density is a constant multiple of the reference, whose tails are analytic.

Shapes: *L leads every leaf (one entry for each density), M panels, K = 5 nodes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.prior.reference import Reference

__all__ = [
    "CdfTable",
    "cdf",
    "density",
    "make_table",
    "normalize",
    "open_uniform",
    "panel_edges",
    "panel_nodes",
    "quantile",
]

NUM_NODES = 5  # more are worse in a monomial basis: conditioning (BUILD_NOTES.md, "Panels")
_NEWTON_STEPS = 8


def _interpolation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre on [0, 1] and the matrix that takes values at the nodes to the cumulative
    polynomial: integral from 0 to t of the interpolant = sum_k (values @ matrix)_k t^(k+1).
    """
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    nodes, weights = (nodes + 1) / 2, weights / 2
    monomials = np.linalg.inv(np.vander(nodes, increasing=True)).T  # values -> coefficients of t^k
    return nodes, weights, monomials / np.arange(1, NUM_NODES + 1)


_NODES, _WEIGHTS, _CUMULATIVE = _interpolation()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["edges", "lower", "upper", "polynomial", "log_normalizer"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class CdfTable:
    """Normalised tables of a bank of univariate densities; a pytree, built once for each parameter value.

    Attributes:
      edges: [*L, M + 1] panel edges; the first and last are the domain [a, b].
      lower: [*L, M + 1] probability below each edge.
      upper: [*L, M + 1] probability above each edge.
      polynomial: [*L, M, K]; the probability from a panel's left edge to its relative position t is
        sum_k polynomial_k t^(k+1).
      log_normalizer: [Q, P] log Z of every component, in nats.
    """

    edges: Array
    lower: Array
    upper: Array
    polynomial: Array
    log_normalizer: Array


def panel_edges(grid: Array, panels_per_interval: int, kinks: tuple[float, ...] = ()) -> Array:
    """Panel edges [*L, M + 1]: every interval of `grid` [*L, N + 1] cut evenly and at the kinks.

    Every interval has the same number of panels, M / N: a kink that lies elsewhere leaves an empty panel at an end.
    """
    fractions = jnp.arange(panels_per_interval, dtype=grid.dtype) / panels_per_interval
    left, right = grid[..., :-1, None], grid[..., 1:, None]
    edges = left + (right - left) * fractions
    if kinks:
        points = jnp.clip(jnp.asarray(kinks, grid.dtype), left, right)
        edges = jnp.sort(jnp.concatenate([edges, points], axis=-1), axis=-1)
    return jnp.concatenate([edges.reshape(*grid.shape[:-1], -1), grid[..., -1:]], axis=-1)


def panel_nodes(edges: Array) -> tuple[Array, Array]:
    """Quadrature nodes [*L, M, K] and what rounding took from them.

    A float32 node near 3 is off by up to 1.2e-7; on a flank of 40 nats per unit that is 5e-6 of the density. The
    second array is that error, so that a caller can correct to first order: f(node + error) = f(node) + f'(node) error.
    """
    left, width = edges[..., :-1, None], jnp.diff(edges)[..., None]
    offset = width * jnp.asarray(_NODES, edges.dtype)
    nodes = left + offset
    # Knuth's two-sum: the exact rounding error of the addition.
    moved = nodes - left
    return nodes, (left - (nodes - moved)) + (offset - moved)


def normalize(
    edges: Array, log_weight: Array, log_lower_tail: Array, log_upper_tail: Array
) -> tuple[Array, Array, Array, Array]:
    """Normalises densities given at the nodes, up to a factor.

    Args:
      edges: [*L, M + 1], or broadcastable to it.
      log_weight: [*L, M, K] log-density at `panel_nodes(edges)`.
      log_lower_tail, log_upper_tail: [*L] log-masses outside the domain, -inf where there is none.

    Returns:
      density [*L, M, K], lower_tail and upper_tail [*L], all normalised, and log_normalizer [*L] in nats.
    """
    tails = jnp.stack([log_lower_tail, log_upper_tail], axis=-1)
    peak = jnp.maximum(jnp.max(log_weight, axis=(-2, -1)), jnp.max(tails, axis=-1))
    peak = jax.lax.stop_gradient(peak)  # a shift of the energy by a constant changes nothing, nor can it overflow
    weight = jnp.exp(log_weight - peak[..., None, None])
    tails = jnp.exp(tails - peak[..., None])
    panels = jnp.sum(weight * jnp.asarray(_WEIGHTS, edges.dtype), axis=-1) * jnp.diff(edges)
    mass = jnp.sum(panels, axis=-1) + jnp.sum(tails, axis=-1)
    tails = tails / mass[..., None]
    return weight / mass[..., None, None], tails[..., 0], tails[..., 1], peak + jnp.log(mass)


def make_table(edges: Array, density: Array, lower_tail: Array, upper_tail: Array, log_normalizer: Array) -> CdfTable:
    """The table of normalised densities.

    Args:
      edges: [*L, M + 1].
      density: [*L, M, K] normalised density at `panel_nodes(edges)`.
      lower_tail, upper_tail: [*L] probabilities outside the domain.
      log_normalizer: [Q, P] kept beside the table for `log_prob`.
    """
    polynomial = jnp.einsum(
        "...mj,jk->...mk",
        density * jnp.diff(edges)[..., None],
        jnp.asarray(_CUMULATIVE, edges.dtype),
        precision="highest",
    )
    mass = jnp.sum(polynomial, axis=-1)
    # Rounding leaves the total within some 1e-7 of one; dividing makes the two accumulations complementary.
    total = jnp.sum(mass, axis=-1) + lower_tail + upper_tail
    mass, polynomial = mass / total[..., None], polynomial / total[..., None, None]
    lower_tail, upper_tail = (lower_tail / total)[..., None], (upper_tail / total)[..., None]
    lower = jnp.cumsum(jnp.concatenate([lower_tail, mass], axis=-1), axis=-1)
    upper = jnp.cumsum(jnp.concatenate([upper_tail, mass[..., ::-1]], axis=-1), axis=-1)[..., ::-1]
    return CdfTable(edges, lower, upper, polynomial, log_normalizer)


def open_uniform(key: Array, shape: tuple[int, ...], dtype=None) -> Array:
    """Uniform draws from the open interval (0, 1): the midpoints of the cells of `jax.random.uniform`, never 0 or 1."""
    u = jax.random.uniform(key, shape, dtype)
    return u + jnp.finfo(u.dtype).eps / 2


def cdf(reference: Reference, table: CdfTable, z: Array) -> Array:
    """Probability below z: [..., *L] -> [..., *L]. 0 and 1 below and above a bounded support."""
    first, last = table.edges[..., 0], table.edges[..., -1]
    row, panel, t, _ = _locate(table, jnp.clip(z, first, last))
    at_left = table.lower.reshape(-1)[row * table.lower.shape[-1] + panel]
    inside = at_left + _cumulative(_panel_rows(table.polynomial, row, panel), t)
    if not reference.has_tails:
        return inside
    below = table.lower[..., 0] * _beyond(reference.log_cdf, jnp.minimum(z, first), first)
    above = table.upper[..., -1] * _beyond(reference.log_survival, jnp.maximum(z, last), last)
    return jnp.where(z < first, below, jnp.where(z > last, 1 - above, inside))


def density(reference: Reference, table: CdfTable, z: Array) -> Array:
    """The slope of `cdf` at z: [..., *L] -> [..., *L]."""
    first, last = table.edges[..., 0], table.edges[..., -1]
    row, panel, t, width = _locate(table, jnp.clip(z, first, last))
    inside = _slope(_panel_rows(table.polynomial, row, panel), t) / width
    if not reference.has_tails:
        return jnp.where((z < first) | (z > last), 0, inside)
    below = table.lower[..., 0] * jnp.exp(reference.log_prob(z) - reference.log_cdf(first))
    above = table.upper[..., -1] * jnp.exp(reference.log_prob(z) - reference.log_survival(last))
    return jnp.where(z < first, below, jnp.where(z > last, above, inside))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def quantile(reference: Reference, table: CdfTable, u: Array) -> Array:
    """Z with probability u below it: [..., *L] -> [..., *L], in the dtype of `u`.

    u = 0 and u = 1 give the ends of the support. Differentiable in u and in the leaves of the table by the implicit
    rule dz = (du - dF(z)) / p(z), with the table's own slope as p.
    """
    num_panels = table.edges.shape[-1] - 1
    num_rows = math.prod(table.edges.shape[:-1])
    # The nearer end keeps the digits: work with the probability p <= 1/2 below or above z. Row r + num_rows of
    # `tails` is density r seen from above.
    from_above = u > 0.5
    p = jnp.where(from_above, 1 - u, u)
    tails = jnp.stack([table.lower, table.upper[..., ::-1]]).reshape(-1)
    row = _rows(table) + jnp.where(from_above, num_rows, 0)
    start = row * (num_panels + 1)
    inside = jnp.clip(p, tails[start], None)  # the tails have their own formula below
    position = _search(tails, start, inside, num_panels)
    panel = jnp.where(from_above, num_panels - 1 - position, position)
    rest = inside - tails[start + position]

    row = _rows(table) + jnp.zeros_like(panel)
    polynomial = _panel_rows(table.polynomial, row, panel)
    target = jnp.where(from_above, jnp.sum(polynomial, axis=-1) - rest, rest)
    left = table.edges.reshape(-1)[row * (num_panels + 1) + panel]
    right = table.edges.reshape(-1)[row * (num_panels + 1) + panel + 1]
    z = left + (right - left) * _solve(polynomial, target)

    if not reference.has_tails:
        return z
    first, last = table.edges[..., 0], table.edges[..., -1]
    lower_tail, upper_tail = table.lower[..., 0], table.upper[..., -1]
    # A tail may hold more than half of the mass: it is known by its own end, not by the nearer one.
    below = reference.quantile(u * (jnp.exp(reference.log_cdf(first)) / lower_tail))
    above = reference.upper_quantile((1 - u) * (jnp.exp(reference.log_survival(last)) / upper_tail))
    return jnp.where(u < lower_tail, below, jnp.where(1 - u < upper_tail, above, z))


@quantile.defjvp
def _quantile_jvp(reference, primals, tangents):
    table, u = primals
    table_dot, u_dot = tangents
    z = quantile(reference, table, u)
    _, probability_dot = jax.jvp(lambda t: cdf(reference, t, z), (table,), (table_dot,))
    slope = jnp.maximum(density(reference, table, z), jnp.finfo(z.dtype).tiny)
    return z, (u_dot - probability_dot) / slope


def _rows(table: CdfTable) -> Array:
    """[*L] the position of each density in the flattened leaves."""
    shape = table.edges.shape[:-1]
    return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)


def _search(values: Array, start: Array, x: Array, num_panels: int) -> Array:
    """Largest j < num_panels with values[start + j] <= x, by bisection; panels without mass are passed over."""

    def halve(bounds, _):
        low, high = bounds
        middle = (low + high) // 2
        passed = values[start + middle] <= x
        return (jnp.where(passed, middle, low), jnp.where(passed, high, middle)), None

    low = jnp.zeros_like(start)
    bounds = (low, low + num_panels)
    (low, _), _ = jax.lax.scan(halve, bounds, length=max(1, math.ceil(math.log2(num_panels))))
    return low


def _locate(table: CdfTable, z: Array) -> tuple[Array, Array, Array, Array]:
    """Row, panel, relative position in the panel and panel width of points inside the domain."""
    edges, num_panels = table.edges.reshape(-1), table.edges.shape[-1] - 1
    row = _rows(table) + jnp.zeros_like(z, dtype=jnp.int32)
    start = row * (num_panels + 1)
    panel = _search(edges, start, z, num_panels)
    left, right = edges[start + panel], edges[start + panel + 1]
    width = jnp.maximum(right - left, jnp.finfo(left.dtype).tiny)
    return row, panel, jnp.clip((z - left) / width, 0, 1), width


def _panel_rows(polynomial: Array, row: Array, panel: Array) -> Array:
    """[..., K] the polynomial of each panel."""
    return polynomial.reshape(-1, NUM_NODES)[row * polynomial.shape[-2] + panel]


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
    """T in [0, 1] where the cumulative polynomial reaches `target`, by bracketed Newton steps."""
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
        # A step that rounding carries just past the bracket is clamped; one that leaves it for good is bisected.
        slack = 1e-3 * (high - low)
        escaped = (step < low - slack) | (step > high + slack)
        return (jnp.where(escaped, (low + high) / 2, jnp.clip(step, low, high)), low, high), None

    start = (jnp.clip(guess, 0, 1), jnp.zeros_like(target), jnp.ones_like(target))
    (t, _, _), _ = jax.lax.scan(newton, start, length=_NEWTON_STEPS)
    return t


def _beyond(log_tail: Callable[[Array], Array], z: Array, edge: Array) -> Array:
    """Mass of the reference beyond z as a share of that beyond `edge`."""
    return jnp.exp(log_tail(z) - log_tail(edge))
