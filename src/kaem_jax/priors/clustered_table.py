"""Tables of a clustered prior, and the densities of its latents: mixtures over clusters, if maps are diagonal."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import is_spread
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.affine import from_standard
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.cdf_table import CdfTable

__all__ = ["ClusteredTable", "marginal_cdf", "marginal_density", "marginal_quantile"]

_MAX_MATRICES = 2**22  # entries of the matrices of full maps that are gathered at once
_NUM_HALVINGS = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClusteredTable:
    """What draws of a clustered prior need; a pytree, built once for each parameter value.

    Attributes:
      coordinates: the densities of each cluster's own coordinates, [C, Q]; None where they are standard normal.
      location, log_scale: [C, Q] of the maps.
      inverse: of shared [Q, Q] and full maps [C, Q, Q], None for diagonal ones.
      log_proportions: [C] nats.
      log_normalizer: [Q, C] log Z of every density, in nats.
    """

    coordinates: CdfTable | None
    location: Array
    log_scale: Array
    inverse: Array | None
    log_proportions: Array
    log_normalizer: Array

    @property
    def base(self) -> dict[str, Array]:
        """Parameters of the base density, which has none."""
        return {}

    @property
    def dtype(self) -> jnp.dtype:
        """Of its draws."""
        return self.location.dtype

    def only(self, cluster: int) -> "ClusteredTable":
        """The table of one cluster alone."""
        is_other = jnp.arange(len(self.log_proportions), dtype=jnp.int32) != cluster
        return dataclasses.replace(self, log_proportions=jnp.where(is_other, -jnp.inf, 0).astype(self.dtype))

    def place(self, cluster: Array, y: Array) -> Array:
        """The latents of coordinates y [*shape, Q] in the clusters [*shape]."""
        inverse = self.inverse
        if inverse is None or inverse.ndim == 2:
            return from_standard(self.location[cluster], self.log_scale[cluster], inverse, y)

        def one(pair: tuple[Array, Array]) -> Array:
            c, y = pair
            return self.location[c] + jnp.einsum("...ij,...j->...i", inverse[c], y, precision="highest")

        size = y.shape[-1]
        flat = (cluster.reshape(-1), y.reshape(-1, size))
        num, at_once = flat[0].size, max(1, _MAX_MATRICES // size**2)  # in exported programs numbers are symbols
        if not isinstance(num, int) or num <= at_once or is_spread():
            return one((cluster, y))
        return jax.lax.map(one, flat, batch_size=at_once).reshape(y.shape)


def marginal_cdf(base: BaseDensity, table: ClusteredTable, z: Array) -> Array:
    """Probability below each latent, [..., Q]."""
    y = _coordinates(table, z)
    if table.coordinates is None:
        return _mean(table, jnp.exp(base.log_cdf({}, y)))
    return _mean(table, inverse_transform.cdf(base, table.coordinates, y))


def marginal_density(base: BaseDensity, table: ClusteredTable, z: Array) -> Array:
    """Density of each latent, [..., Q]."""
    y = _coordinates(table, z)
    if table.coordinates is None:
        density = jnp.exp(base.log_prob({}, y))
    else:
        density = inverse_transform.density(base, table.coordinates, y)
    return _mean(table, density * jnp.exp(table.log_scale))


def marginal_quantile(base: BaseDensity, table: ClusteredTable, u: Array) -> Array:
    """The latent with probability u below it, [..., Q], by halving between the quantiles of single clusters.

    Differentiable in u and in the table, by the implicit rule.
    """
    wide = jnp.broadcast_to(u[..., None, :], (*u.shape[:-1], *table.location.shape))
    if table.coordinates is None:
        y = base.quantile({}, wide)
    else:
        y = inverse_transform.quantile(base, table.coordinates, wide)
    z = jax.lax.stop_gradient(from_standard(table.location, table.log_scale, None, y))
    fixed = jax.lax.stop_gradient((table, u))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        is_above = marginal_cdf(base, fixed[0], middle) > fixed[1]
        return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high)

    low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (jnp.min(z, axis=-2), jnp.max(z, axis=-2)))
    found = (low + high) / 2
    error = marginal_cdf(base, table, found) - u
    # Its value is 0: only the derivative counts.
    return found - (error - jax.lax.stop_gradient(error)) / jax.lax.stop_gradient(marginal_density(base, table, found))


def _coordinates(table: ClusteredTable, z: Array) -> Array:
    """[..., Q] to [..., C, Q]."""
    return jnp.exp(table.log_scale) * (z[..., None, :] - table.location)


def _mean(table: ClusteredTable, values: Array) -> Array:
    """The mean over clusters, [..., C, Q] to [..., Q]."""
    return jnp.einsum("c,...cq->...q", jnp.exp(table.log_proportions), values, precision="highest")
