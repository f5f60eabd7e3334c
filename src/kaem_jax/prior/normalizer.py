"""Log Z alone, from a fifth of the panels with more nodes each.

A table interpolates the density inside every panel, which needs short panels. An integral does not: eight
Gauss-Legendre nodes integrate a panel five times as long to the same accuracy, from a third of the values
(BUILD_NOTES.md, "Panels"). Training needs log Z and its gradient in every step, and no table.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.prior.base import Params, component_log_tails
from kaem_jax.prior.cdf_table import panel_edges
from kaem_jax.prior.reference import Reference

__all__ = ["component_log_normalizer"]

_PANELS_IN_ONE = 5  # how many panels of a table one panel replaces
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def component_log_normalizer(bank: FunctionBank, reference: Reference, params: Params) -> Array:
    """Log of the integral of exp(f) pi0 over the real line, of every component: [Q, P] nats."""
    num_panels = -(-bank.basis.panels_per_interval // _PANELS_IN_ONE)
    edges = panel_edges(bank.frozen_grid(params["bank"]), num_panels, bank.kinks)
    width = jnp.diff(edges)[..., None]
    nodes = edges[..., :-1, None] + width * jnp.asarray((_NODES + 1) / 2, edges.dtype)
    weights = width * jnp.asarray(_WEIGHTS / 2, edges.dtype)

    by_interval = (*edges.shape[:-1], bank.num_intervals, -1)
    nodes, weights = nodes.reshape(by_interval), weights.reshape(by_interval)
    wide = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, (2, 3)), params["reference"])
    energy = bank.evaluate_on_intervals(params["bank"], nodes)
    log_mass = energy + (reference.log_prob(wide, nodes) + jnp.log(weights))  # an empty panel, at a kink, has log 0
    tails = component_log_tails(bank, reference, params, edges[..., 0], edges[..., -1])
    parts = [log_mass.reshape(bank.outer, bank.inner, -1), *(tail[..., None] for tail in tails)]
    return jax.nn.logsumexp(jnp.concatenate(parts, axis=-1), axis=-1)
