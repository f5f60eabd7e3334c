"""Draws of some latents while the others stay."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.model import Model, Params
from kaem_jax.prior.base import Table, component_log_weight
from kaem_jax.prior.clustered import ClusteredPrior

__all__ = ["redraw"]


@functools.partial(jax.jit, static_argnames=("model", "num"))
def redraw(
    key: Array,
    model: Model,
    params: Params,
    table: Table,
    latent: Array,
    is_locked: Array,
    cluster: Array | None = None,
    *,
    num: int,
) -> Array:
    """Exact draws of the prior given its locked coordinates, for a prior with exact draws.

    The coordinates of most priors are independent. Those of a clustered one depend on each other through the cluster,
    which is drawn from p(c | locked coordinates) first.

    Args:
      latent: [*event_shape], the values of what is locked.
      is_locked: bool [*event_shape].
      cluster: int [], of a clustered prior: the cluster from which all draws come; None draws it.
      num: S.

    Returns:
      [S, *event_shape].
    """
    prior = model.prior
    if isinstance(prior, ClusteredPrior):
        key_cluster, key = jax.random.split(key)
        if cluster is None:
            log_share = _log_share_of_clusters(prior, params, table, latent, is_locked)
            chosen = jax.random.categorical(key_cluster, log_share, shape=(num,)).astype(jnp.int32)
        else:
            chosen = jnp.broadcast_to(cluster, (num,))
        drawn = prior.sample_of_cluster(key, table, chosen, (num,))
    else:
        drawn = prior.sample(key, table, (num,))
    return jnp.where(is_locked, latent, drawn)


def _log_share_of_clusters(
    prior: ClusteredPrior, params: Params, table: Table, latent: Array, is_known: Array
) -> Array:
    """Log p(c | known coordinates) up to a constant, for latents [Q] and bool [Q]: [C] nats."""
    log_density = (
        component_log_weight(prior.bank, prior.reference, params["prior"], latent[:, None]) - table.log_normalizer
    )
    return table.log_proportions + jnp.sum(jnp.where(is_known[:, None], log_density, 0), axis=0)
