"""Univariate densities p(z) = exp(f(z)) pi0(z) / Z: the energy f, log Z, CDF and quantile (docs/method.md, section 4).

Log Z is a sum of Gauss-Legendre rules on panels of the domain [a, b] on which f is smooth. A `DensityTable` adds what
draws need: on each panel a quartic interpolates p at five nodes, and its antiderivative is the CDF. Masses of panels
are accumulated from both ends, so that the upper tail is as exact as the lower. Outside [a, b] the energy is constant,
and the density is a multiple of the base, whose tails are analytic.

Shapes: *L leads, one entry per density; M panels, the same for all densities; K = 5 nodes.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import special

from kaem_jax.jax_utils.placement import is_spread
from kaem_jax.jax_utils.transforms import STATIC, sum_of_rows
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.priors.base_density import BaseDensity

Params = dict[str, Any]

NUM_NODES = 5  # more are worse: the monomial basis is ill-conditioned (docs/decisions/quadrature.md)
# Log Z interpolates nothing: sixteen nodes integrate a panel ten times as long to the same accuracy.
_PANELS_IN_ONE, (_LONG_NODES, _LONG_WEIGHTS) = 10, np.polynomial.legendre.leggauss(16)
_NEWTON_STEPS = 8
_LARGEST = 12.0  # deviations
_MAX_VALUES_AT_ONCE = 2**19  # bounds the memory of the search's intermediate arrays: about fifteen floats per value


def _interpolation() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes on [0, 1], and the matrix from values at the nodes to the cumulative polynomial.

    The integral of the interpolant from 0 to t is sum_k (values @ matrix)_k t^(k+1).
    """
    nodes = (np.polynomial.legendre.leggauss(NUM_NODES)[0] + 1) / 2
    monomials = np.linalg.inv(np.vander(nodes, increasing=True)).T  # values -> coefficients of t^k
    return nodes, monomials / np.arange(1, NUM_NODES + 1)


_NODES, _CUMULATIVE = _interpolation()


def init_components(key: Array, bank: FunctionBank, base: BaseDensity) -> Params:
    """Parameters of the energies and of the base densities."""
    return {"bank": bank.init(key), "base": base.init(bank.argument_shape)}


def component_log_weight(bank: FunctionBank, base: BaseDensity, params: Params, z: Array) -> Array:
    """f(z) + log pi0(z), unnormalised, of every component: [..., Q, P'] -> [..., Q, P] nats."""
    # Outside the domain energies are those of its nearer end (docs/method.md, section 3).
    energy = bank.evaluate(params["bank"], jnp.clip(z, *bank.domain))
    return energy + base.log_prob(params["base"], z)


@functools.partial(jax.jit, static_argnums=(0, 1))
def component_log_normalizer(bank: FunctionBank, base: BaseDensity, params: Params) -> Array:
    """Log Z, the log of the integral of exp(f) pi0, for every component: [Q, P] nats."""
    edges = panel_edges(bank, -(-bank.basis.panels_per_interval // _PANELS_IN_ONE))
    width = np.diff(edges)[:, None]
    log_weight = _log_weight_at(bank, base, params, edges[:-1, None] + width * (_LONG_NODES + 1) / 2)
    log_mass = log_weight + jnp.asarray(np.log(width * _LONG_WEIGHTS / 2), log_weight.dtype)
    tails = [tail[..., None] for tail in _log_tails(bank, base, params)]
    return _log_sum_exp(jnp.concatenate([log_mass.reshape(*log_mass.shape[:-2], -1), *tails], axis=-1))


def component_densities(
    bank: FunctionBank, base: BaseDensity, params: Params
) -> tuple[np.ndarray, Array, Array, Array, Array]:
    """Every component's normalised density at the nodes of a table.

    Returns:
      edges [M + 1]; density [Q, P, M, K] at `panel_nodes(edges)`; probabilities lower_tail and upper_tail [Q, P]
      outside the domain; log_normalizer [Q, P] nats.
    """
    edges = panel_edges(bank, bank.basis.panels_per_interval)
    log_normalizer = component_log_normalizer(bank, base, params)
    log_weight = _log_weight_at(bank, base, params, panel_nodes(edges))
    lower, upper = _log_tails(bank, base, params)
    density = jnp.exp(log_weight - log_normalizer[..., None, None])
    return edges, density, jnp.exp(lower - log_normalizer), jnp.exp(upper - log_normalizer), log_normalizer


def panel_edges(bank: FunctionBank, panels_per_interval: int) -> np.ndarray:
    """Edges [M + 1] of panels on which the functions of a bank are smooth: its intervals, cut evenly and at kinks."""
    edges = bank.cut(panels_per_interval)
    near = 1e-6 * (edges[1] - edges[0])  # an edge this close serves
    kinks = [kink for kink in bank.kinks if edges[0] < kink < edges[-1] and np.min(np.abs(edges - kink)) > near]
    return np.sort(np.append(edges, kinks))


def panel_nodes(edges: np.ndarray) -> np.ndarray:
    """Quadrature nodes [M, K] of the panels between `edges` [M + 1]."""
    return edges[:-1, None] + np.diff(edges)[:, None] * _NODES


def _log_sum_exp(x: Array) -> Array:
    """Log of the sum of exp(x) over the last axis, three times as fast as `logsumexp` on CPUs."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1))
    return top + jnp.log(sum_of_rows(jnp.exp(x - top[..., None]), "highest"))


def _log_weight_at(bank: FunctionBank, base: BaseDensity, params: Params, nodes: np.ndarray) -> Array:
    energy = bank.evaluate_all(params["bank"], nodes.ravel())
    wide = jax.tree.map(lambda leaf: leaf[..., None], params["base"])
    log_weight = energy + base.log_prob(wide, jnp.asarray(nodes.ravel(), energy.dtype))
    return log_weight.reshape(bank.outer, bank.inner, *nodes.shape)


def _log_tails(bank: FunctionBank, base: BaseDensity, params: Params) -> tuple[Array, Array]:
    at_ends = bank.evaluate_all(params["bank"], np.array(bank.domain))
    if not base.has_tails:
        nothing = jnp.full_like(at_ends[..., 0], -jnp.inf)
        return nothing, nothing
    # The energy is constant beyond an end, so the tail is that of the base, scaled.
    first, last = (jnp.asarray(end, at_ends.dtype) for end in bank.domain)
    lower = at_ends[..., 0] + base.log_cdf(params["base"], first)
    upper = at_ends[..., 1] + base.log_survival(params["base"], last)
    return lower, upper


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DensityTable:
    """Normalised univariate densities, built once per parameter value; a pytree.

    Values [..., *L] match the densities [*L] one by one. With `row` [...], values [...] belong to the densities with
    these indices in the flattened [*L].

    Attributes:
      edges: [M + 1] panel edges; the first and last are the domain [a, b].
      lower, upper: [*L, M + 1] probability below and above each edge.
      polynomial: [*L, M, K]; the probability from a panel's left edge to its relative position t is sum_k polynomial_k
        t^(k+1).
      base_params: parameters of the base density, [*L] each.
      log_normalizer: log Z of every component, nats: [*L], or [Q, P] where P components are mixed.
      base: pi0, static.
    """

    edges: Array
    lower: Array
    upper: Array
    polynomial: Array
    base_params: dict[str, Array]
    log_normalizer: Array
    base: BaseDensity = dataclasses.field(metadata=STATIC)

    @classmethod
    def of_densities(
        cls, base: BaseDensity, edges: np.ndarray, density: Array, lower_tail: Array, upper_tail: Array,
        log_normalizer: Array, base_params: dict[str, Array],
    ) -> "DensityTable":  # fmt: skip
        """The table of densities [*L, M, K] at `panel_nodes(edges)` with probabilities [*L] outside the domain."""
        polynomial = jnp.einsum(
            "...mj,jk->...mk",
            density * jnp.asarray(np.diff(edges), density.dtype)[:, None],
            jnp.asarray(_CUMULATIVE, density.dtype),
            precision="highest",
        )
        mass = jnp.sum(polynomial, axis=-1)
        # Rounding leaves the total within some 1e-7 of one; dividing makes the two accumulations complementary.
        total = jnp.sum(mass, axis=-1) + lower_tail + upper_tail
        mass, polynomial = mass / total[..., None], polynomial / total[..., None, None]
        lower_tail, upper_tail = (lower_tail / total)[..., None], (upper_tail / total)[..., None]
        lower = jnp.cumsum(jnp.concatenate([lower_tail, mass], axis=-1), axis=-1)
        upper = jnp.cumsum(jnp.concatenate([upper_tail, mass[..., ::-1]], axis=-1), axis=-1)[..., ::-1]
        return cls(jnp.asarray(edges, density.dtype), lower, upper, polynomial, base_params, log_normalizer, base)

    def cdf(self, z: Array, row: Array | None = None) -> Array:
        """Probability below z: [..., *L] -> [..., *L]."""
        own, base = functools.partial(_own, row=row), self.base
        first, last = self.edges[0], self.edges[-1]
        rows, panel, t, _ = self._locate(jnp.clip(z, first, last), row)
        inside = _at(self.lower, rows, panel) + _cumulative(self._polynomial_at(rows, panel), t)
        if not base.has_tails:
            return jnp.clip(inside, 0, 1)  # sums may round to a little more
        params = jax.tree.map(own, self.base_params)
        low, high = jnp.minimum(z, first), jnp.maximum(z, last)  # keeps the branch that is not taken finite
        below = own(self.lower[..., 0]) * jnp.exp(base.log_cdf(params, low) - base.log_cdf(params, first))
        above = own(self.upper[..., -1]) * jnp.exp(base.log_survival(params, high) - base.log_survival(params, last))
        return jnp.where(z < first, below, jnp.where(z > last, 1 - above, inside))

    def density(self, z: Array, row: Array | None = None) -> Array:
        """The slope of `cdf` at z: [..., *L] -> [..., *L]."""
        own, base = functools.partial(_own, row=row), self.base
        first, last = self.edges[0], self.edges[-1]
        rows, panel, t, width = self._locate(jnp.clip(z, first, last), row)
        inside = _slope(self._polynomial_at(rows, panel), t) / width
        if not base.has_tails:
            return jnp.where((z < first) | (z > last), 0, inside)
        params = jax.tree.map(own, self.base_params)
        low, high = jnp.minimum(z, first), jnp.maximum(z, last)  # keeps the branch that is not taken finite
        below = own(self.lower[..., 0]) * jnp.exp(base.log_prob(params, low) - base.log_cdf(params, first))
        above = own(self.upper[..., -1]) * jnp.exp(base.log_prob(params, high) - base.log_survival(params, last))
        return jnp.where(z < first, below, jnp.where(z > last, above, inside))

    def quantile(self, u: Array, row: Array | None = None) -> Array:
        """The point with probability u below it: [..., *L] -> [..., *L], in the dtype of `u`.

        u = 0 and 1 give the ends of the support. Differentiable in u and in the table by the implicit rule
        dz = (du - dF(z)) / p(z), with the table's own slope as p.
        """
        return _invert(self, row, u, 1 - u)

    def normal_quantile(self, epsilon: Array) -> Array:
        """F^-1(Phi(epsilon)), [..., *L] -> [..., *L], differentiable.

        The upper half goes through Phi(-epsilon): a float32 Phi rounds to 1 at epsilon = 5.5. Epsilon is clipped to
        [-12, 12], since heavy-tailed proposals reach points whose tail probability rounds to 0, near 13.
        """
        epsilon = jnp.clip(epsilon, -_LARGEST, _LARGEST)
        return _invert(self, None, special.ndtr(epsilon), special.ndtr(-epsilon))

    def rows(self) -> Array:
        shape = self.lower.shape[:-1]
        return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)

    def _locate(self, z: Array, row: Array | None) -> tuple[Array, Array, Array, Array]:
        """Row, panel, relative position in the panel, and panel width of points in the domain."""
        row = self.rows() if row is None else row
        panel = jnp.clip(jnp.searchsorted(self.edges, z, side="right") - 1, 0, self.edges.size - 2)
        left, right = self.edges[panel], self.edges[panel + 1]
        return row, panel, (z - left) / (right - left), right - left

    def _polynomial_at(self, row: Array, panel: Array) -> Array:
        return self.polynomial.reshape(-1, NUM_NODES)[row * self.polynomial.shape[-2] + panel]

    def _invert_at_once(self, row: Array | None, below: Array, above: Array) -> Array:
        own, base = functools.partial(_own, row=row), self.base
        num_panels = self.edges.size - 1
        num_rows = math.prod(self.lower.shape[:-1])
        rows = self.rows() if row is None else row
        # Probabilities from the nearer end keep their digits: `tails` has all densities from below, then from above.
        from_above = below > above
        tails = jnp.stack([self.lower, self.upper[..., ::-1]])
        tail = rows + jnp.where(from_above, num_rows, 0)
        inside = jnp.maximum(jnp.minimum(below, above), _at(tails, tail, 0))  # tails have their own formula below
        steps = _search(tails, tail, inside)  # panels from the nearer end
        panel = jnp.where(from_above, num_panels - 1 - steps, steps)
        rest = inside - _at(tails, tail, steps)

        polynomial = self._polynomial_at(rows, panel)
        target = jnp.where(from_above, jnp.sum(polynomial, axis=-1) - rest, rest)
        left, right = self.edges[panel], self.edges[panel + 1]
        z = left + (right - left) * _solve(polynomial, target)

        if not base.has_tails:
            return z
        first, last = self.edges[0], self.edges[-1]
        lower_tail, upper_tail = own(self.lower[..., 0]), own(self.upper[..., -1])
        params = jax.tree.map(own, self.base_params)
        # A tail may hold more than half of the mass, so it is chosen by its own probability, not by the nearer end.
        low_share = jnp.exp(base.log_cdf(params, first)) / lower_tail
        high_share = jnp.exp(base.log_survival(params, last)) / upper_tail
        low = base.quantile(params, below * low_share)
        high = base.upper_quantile(params, above * high_share)
        return jnp.where(below < lower_tail, low, jnp.where(above < upper_tail, high, z))


@jax.custom_jvp
def _invert(table: DensityTable, row: Array | None, below: Array, above: Array) -> Array:
    """The point with probability `below` below it and `above` above it; the smaller of the two must be exact."""
    event_shape = table.lower.shape[:-1] if row is None else ()
    num_rows = below.size // math.prod(event_shape)
    num_chunks = -(-below.size // _MAX_VALUES_AT_ONCE)
    # No chunks on a mesh: they would cut across its devices, and each device has only its share of the values.
    if below.size == 0 or num_chunks == 1 or below.ndim == len(event_shape) or is_spread():
        return table._invert_at_once(row, below, above)
    size = -(-num_rows // num_chunks)
    padding = [(0, num_chunks * size - num_rows)] + [(0, 0)] * len(event_shape)

    def chunks(values: Array, fill: float) -> Array:
        padded = jnp.pad(values.reshape(num_rows, *event_shape), padding, constant_values=fill)
        return padded.reshape(num_chunks, size, *event_shape)

    parts = (None if row is None else chunks(row, 0), chunks(below, 0.5), chunks(above, 0.5))
    z = jax.lax.map(lambda part: table._invert_at_once(*part), parts)
    return z.reshape(-1, *event_shape)[:num_rows].reshape(below.shape)


@_invert.defjvp
def _invert_jvp(primals, tangents):
    table, row, below, above = primals
    table_dot, _, below_dot, _ = tangents  # `above` is 1 - below: its tangent adds nothing
    z = _invert(table, row, below, above)
    _, probability_dot = jax.jvp(lambda t: t.cdf(z, row), (table,), (table_dot,))
    slope = jnp.maximum(table.density(z, row), jnp.finfo(z.dtype).tiny)
    return z, (below_dot - probability_dot) / slope


def _own(values: Array, row: Array | None) -> Array:
    """The entries of `values` [*L] at the flattened indices `row`; all of them for None."""
    return values if row is None else values.reshape(-1)[row]


def _at(leaf: Array, row: Array, column: Array | int) -> Array:
    """leaf[row, column] of a leaf [*L, M], with [*L] flattened, without a copy of the table."""
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
