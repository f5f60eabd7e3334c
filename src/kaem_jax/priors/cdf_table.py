"""Exact tables of univariate densities: normaliser, CDF and quantile to float32 accuracy (docs/method.md, section 4).

For a density p(z) = exp(f(z)) pi0(z) / Z, the domain [a, b] is cut into M panels on which f is smooth. On a panel, a
quartic interpolates p at five Gauss-Legendre nodes. Its antiderivative is the CDF inside the panel; its integral, the
Gauss-Legendre sum, is the panel's mass. Masses are accumulated from both ends, so that the upper tail is
as exact as the lower. Outside [a, b] the density is a constant multiple of the base, whose tails are analytic.

All densities have the same panels. Shapes: *L leads every other leaf (one entry for each density), M panels, K = 5
nodes.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.bank import FunctionBank

NUM_NODES = 5  # more are worse: the monomial basis is ill-conditioned (docs/decisions/quadrature.md)


def _interpolation() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes on [0, 1], and the matrix from values at the nodes to the cumulative polynomial.

    The integral of the interpolant from 0 to t is sum_k (values @ matrix)_k t^(k+1).
    """
    nodes = (np.polynomial.legendre.leggauss(NUM_NODES)[0] + 1) / 2
    monomials = np.linalg.inv(np.vander(nodes, increasing=True)).T  # values -> coefficients of t^k
    return nodes, monomials / np.arange(1, NUM_NODES + 1)


_NODES, _CUMULATIVE = _interpolation()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CdfTable:
    """Normalised tables of a bank of univariate densities; a pytree, built once for each parameter value.

    Attributes:
      edges: [M + 1] panel edges; the first and last are the domain [a, b].
      lower: [*L, M + 1] probability below each edge.
      upper: [*L, M + 1] probability above each edge.
      polynomial: [*L, M, K]; the probability from a panel's left edge to its relative position t is
        sum_k polynomial_k t^(k+1).
      base: parameters of the base density, [*L] each; empty where it has none.
      log_normalizer: log Z of every component, in nats: [*L], or [Q, P] where P components are mixed.
    """

    edges: Array
    lower: Array
    upper: Array
    polynomial: Array
    base: dict[str, Array]
    log_normalizer: Array


def panel_edges(bank: FunctionBank, panels_per_interval: int) -> np.ndarray:
    """Edges [M + 1] of panels on which the functions of a bank are smooth: its intervals, cut evenly and at kinks."""
    edges = bank.cut(panels_per_interval)
    near = 1e-6 * (edges[1] - edges[0])  # an edge this close serves
    kinks = [kink for kink in bank.kinks if edges[0] < kink < edges[-1] and np.min(np.abs(edges - kink)) > near]
    return np.sort(np.append(edges, kinks))


def panel_nodes(edges: np.ndarray) -> np.ndarray:
    """Quadrature nodes [M, K] of the panels between `edges` [M + 1]."""
    return edges[:-1, None] + np.diff(edges)[:, None] * _NODES


def make_table(
    edges: np.ndarray,
    density: Array,
    lower_tail: Array,
    upper_tail: Array,
    log_normalizer: Array,
    base: dict[str, Array],
) -> CdfTable:
    """The table of normalised densities.

    Args:
      edges: [M + 1].
      density: [*L, M, K] normalised density at `panel_nodes(edges)`.
      lower_tail, upper_tail: [*L] probabilities outside the domain.
      log_normalizer: [Q, P] stored with the table for `log_prob`.
      base: [*L] parameters of the base density.
    """
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
    return CdfTable(jnp.asarray(edges, density.dtype), lower, upper, polynomial, base, log_normalizer)
