"""Tables of a clustered prior, and the marginal CDF, density and quantile of each latent for diagonal maps."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.placement import is_spread
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.affine import from_standard
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.cdf_table import CdfTable

_MAX_MATRICES = 2**22  # entries of the matrices of full maps that are gathered at once
_NUM_HALVINGS = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClusteredTable:
    """The arrays that a clustered prior draws from; a pytree, built once for each parameter value.

    Attributes:
      coordinates: tables of the densities of each cluster's own coordinates, [C, Q]; None if they are standard normal.
      location, log_scale: [C, Q], parameters of the maps.
      inverse: see `affine.inverse_of`; [Q, Q] for shared maps, [C, Q, Q] for full maps, None for diagonal maps.
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
        """Parameters of the base density: none, it is the standard normal."""
        return {}

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of draws."""
        return self.location.dtype

    def only(self, cluster: int) -> "ClusteredTable":
        """The table of one cluster alone."""
        is_other = jnp.arange(len(self.log_proportions), dtype=jnp.int32) != cluster
        return dataclasses.replace(self, log_proportions=jnp.where(is_other, -jnp.inf, 0).astype(self.dtype))

    def place(self, cluster: Array, y: Array) -> Array:
        """Maps coordinates y [*shape, Q] of the clusters [*shape] to latents."""
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
    """The latent with probability u below it, [..., Q], by bisection between the quantiles of the single clusters.

    Differentiable in u and in the table, by the implicit function theorem.
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
    # The quotient has the value 0; only its derivative counts.
    return found - (error - jax.lax.stop_gradient(error)) / jax.lax.stop_gradient(marginal_density(base, table, found))


def _coordinates(table: ClusteredTable, z: Array) -> Array:
    """Latents [..., Q] in the coordinates of every cluster, [..., C, Q]."""
    return jnp.exp(table.log_scale) * (z[..., None, :] - table.location)


def _mean(table: ClusteredTable, values: Array) -> Array:
    """The mean over clusters weighted by their proportions, [..., C, Q] to [..., Q]."""
    return jnp.einsum("c,...cq->...q", jnp.exp(table.log_proportions), values, precision="highest")
