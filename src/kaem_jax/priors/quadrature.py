"""Integrals of univariate densities exp(f) pi0: log Z alone, and densities at the nodes of a table.

A table interpolates the density inside every panel, which needs short panels. Log Z needs no interpolation: sixteen
Gauss-Legendre nodes integrate a panel ten times as long to the same accuracy, from a third of the values where there
are no kinks (docs/decisions/quadrature.md). Training needs log Z and its gradient in every step, and no table.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.priors.base import Params
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.cdf_table import panel_edges, panel_nodes

__all__ = ["component_densities", "component_log_normalizer"]

_PANELS_IN_ONE = 10  # how many panels of a table one panel of log Z replaces
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def component_log_normalizer(bank: FunctionBank, base: BaseDensity, params: Params) -> Array:
    """Log Z, of the integral of exp(f) pi0 over the real line, for every component: [Q, P] nats."""
    num_panels = -(-bank.basis.panels_per_interval // _PANELS_IN_ONE)
    edges = panel_edges(bank.frozen_grid(params["bank"]), num_panels, bank.kinks)
    width = jnp.diff(edges)[..., None]
    nodes = edges[..., :-1, None] + width * jnp.asarray((_NODES + 1) / 2, edges.dtype)
    # Panels at kinks and between equal breakpoints are empty, and 0 * log 0 in the matrix products of forward mode and
    # of second derivatives would not be a number.
    node_width = jnp.maximum(width * jnp.asarray(_WEIGHTS / 2, edges.dtype), jnp.finfo(edges.dtype).tiny)
    log_mass = _log_weight_at(bank, base, params, nodes, jnp.log(node_width))
    log_normalizer = jax.nn.logsumexp(log_mass.reshape(bank.outer, bank.inner, -1), axis=-1)
    for tail in _log_tails(bank, base, params, edges[..., 0], edges[..., -1]):
        log_normalizer = jnp.logaddexp(log_normalizer, tail)
    return log_normalizer


def component_densities(
    bank: FunctionBank, base: BaseDensity, params: Params
) -> tuple[Array, Array, Array, Array, Array]:
    """Every component's normalised density at the nodes of a table.

    Returns:
      edges [Q, P', M + 1]; density [Q, P, M, K] at `panel_nodes(edges)`, probabilities lower_tail and upper_tail [Q, P]
      outside the domain; log_normalizer [Q, P] nats.
    """
    edges = panel_edges(bank.frozen_grid(params["bank"]), bank.basis.panels_per_interval, bank.kinks)
    log_normalizer = component_log_normalizer(bank, base, params)
    log_weight = _log_weight_at(bank, base, params, panel_nodes(edges))
    lower, upper = _log_tails(bank, base, params, edges[..., 0], edges[..., -1])
    density = jnp.exp(log_weight - log_normalizer[..., None, None])
    return edges, density, jnp.exp(lower - log_normalizer), jnp.exp(upper - log_normalizer), log_normalizer


def _log_weight_at(
    bank: FunctionBank, base: BaseDensity, params: Params, nodes: Array, offset: Array | float = 0.0
) -> Array:
    """Energy + log pi0 + offset of every component at nodes [Q, P', M, K] sorted by interval: [Q, P, M, K] nats."""
    shape = (*nodes.shape[:2], bank.num_intervals, -1)
    by_interval = nodes.reshape(shape)
    wide = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, (2, 3)), params["base"])
    rest = base.log_prob(wide, by_interval) + jnp.broadcast_to(offset, nodes.shape).reshape(shape)
    log_weight = bank.evaluate_on_intervals(params["bank"], by_interval, rest)
    return log_weight.reshape(bank.outer, bank.inner, *nodes.shape[2:])


def _log_tails(bank: FunctionBank, base: BaseDensity, params: Params, first: Array, last: Array) -> tuple[Array, Array]:
    """Log-masses below `first` and above `last` [Q, P'], the ends of the domain, of every component: [Q, P] nats."""
    if not base.has_tails:
        nothing = jnp.full((bank.outer, bank.inner), -jnp.inf, first.dtype)
        return nothing, nothing
    # The energy is constant beyond an end, so the tail is that of the base, scaled.
    lower = bank.evaluate(params["bank"], first) + base.log_cdf(params["base"], first)
    upper = bank.evaluate(params["bank"], last) + base.log_survival(params["base"], last)
    return lower, upper
