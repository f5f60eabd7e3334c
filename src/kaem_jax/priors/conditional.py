"""Draws of some latents given the others."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params, Prior, Table
from kaem_jax.priors.calls import as_table, checked_params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.settings.arguments import Shape, as_shape, check_latent


def sample_given(
    key: Array,
    prior: Prior,
    params: Params,
    latent: Array,
    is_known: Array,
    shape: Shape = (),
    *,
    table: Table | None = None,
    cluster: Array | int | None = None,
) -> Array:
    """Exact draws of the prior given some of its coordinates.

    The coordinates of most priors are independent. In a clustered prior they depend on each other through the cluster,
    which is drawn first, from p(c | known coordinates).

    Args:
      key: a PRNG key.
      prior: a prior with `has_exact_conditionals`.
      params: its parameters.
      latent: [*event_shape]; only its known values are read.
      is_known: bool [*event_shape].
      shape: of the draws.
      table: `prior.tabulate(params)`; computed if left out.
      cluster: for a clustered prior, the cluster of all draws; None draws it.

    Returns:
      Draws [*shape, *event_shape]; the known values are unchanged.

    Raises:
      ValueError: the prior has no exact conditionals, a shape is wrong, or there is no such cluster.

    Example:
      >>> known = jnp.array([True, False])
      >>> kaem.sample_given(key, prior, params["prior"], jnp.array([0.5, 0.0]), known, (100,)).shape
      (100, 2)
    """
    if not prior.has_exact_conditionals:
        raise ValueError(
            f"a {type(prior).__name__} has no exact draws given some of its coordinates: its latents depend on each "
            "other; of the clustered priors, those with map='diagonal' have them"
        )
    latent, is_known = check_latent(latent, prior.event_shape, "latent"), jnp.asarray(is_known, bool)
    for name, array in (("latent", latent), ("is_known", is_known)):
        if array.shape != prior.event_shape:
            raise ValueError(f"{name} has shape {array.shape}; this prior takes {prior.event_shape}")
    if cluster is not None:
        if not isinstance(prior, ClusteredPrior):
            raise ValueError(f"cluster={cluster} needs a clustered prior; latents of this one have no clusters")
        prior.check_cluster(cluster)
        cluster = jnp.asarray(cluster, jnp.int32)
    params = checked_params(params)
    table = as_table(prior, params if table is None else table)
    return _draw(key, prior, params, table, latent, is_known, cluster, as_shape(shape))


@functools.partial(jax.jit, static_argnames=("prior", "shape"))
def _draw(
    key: Array,
    prior: Prior,
    params: Params,
    table: Table,
    latent: Array,
    is_known: Array,
    cluster: Array | None,
    shape: tuple[int, ...],
) -> Array:
    if isinstance(prior, ClusteredPrior):
        key_cluster, key = jax.random.split(key)
        if cluster is None:
            log_joint = prior.log_joint_of_known(params, latent, is_known, table)
            cluster = jax.random.categorical(key_cluster, log_joint, shape=shape).astype(jnp.int32)
        drawn = prior.sample_of_cluster(key, table, cluster, shape)
    else:
        drawn = prior.sample(key, table, shape)
    return jnp.where(is_known, latent, drawn)
