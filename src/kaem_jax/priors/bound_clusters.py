"""A clustered prior at its parameters: draws, log p(z), clusters and classes of latents."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.placement import is_spread
from kaem_jax.jax_utils.transforms import vary_like
from kaem_jax.priors import affine
from kaem_jax.priors.base import BoundPrior, drawing
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.priors.univariate import DensityTable
from kaem_jax.settings.arguments import Shape, as_shape

if TYPE_CHECKING:
    from kaem_jax.priors.clustered import ClusteredPrior

_MAX_MATRICES = 2**22  # entries of the matrices of full maps that are gathered at once
_NUM_HALVINGS = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClusteredTable:
    """What a clustered prior computes once from its parameters.

    Attributes:
      coordinates: densities of each cluster's own coordinates, [C, Q]; None if they are standard normal.
      inverse: see `affine.inverse_of`.
      log_proportions: [C] nats.
      log_normalizer: [Q, C] log Z of every density, nats.
    """

    coordinates: DensityTable | None
    inverse: Array | None
    log_proportions: Array
    log_normalizer: Array


class BoundClusters(BoundPrior):
    """A clustered prior at its parameters: C clusters in K classes over latents [..., Q]."""

    prior: "ClusteredPrior"
    table: ClusteredTable

    @property
    def dtype(self) -> Any:
        return self.params["location"].dtype

    def only(self, cluster: int) -> "BoundClusters":
        is_other = jnp.arange(self.prior.num_clusters, dtype=jnp.int32) != cluster
        log_proportions = jnp.where(is_other, -jnp.inf, 0).astype(self.dtype)
        return dataclasses.replace(self, table=dataclasses.replace(self.table, log_proportions=log_proportions))

    def sample_with_cluster(self, key: Array, shape: Shape = (), points: str = "random") -> tuple[Array, Array]:
        """Exact draws [*shape, Q] and the clusters that made them, int32 [*shape]."""
        return self._sample_with_cluster(key, as_shape(shape), points)

    def sample_of_cluster(self, key: Array, cluster: Array | int, shape: Shape | None = None) -> Array:
        """Exact draws [*shape, Q] of one cluster, or of the clusters [*shape], whose shape is the default.

        Raises:
          ValueError: a cluster is not one of 0..C-1; traced clusters are not checked.
        """
        self.prior.check_cluster(cluster)
        where = jnp.shape(cluster) if shape is None else as_shape(shape)
        return self._draw_from(key, jnp.asarray(cluster, jnp.int32), where)

    def sample_of_class(self, key: Array, label: Array | int, shape: Shape | None = None) -> Array:
        """Exact draws [*shape, Q] of one class, or of the classes `label` [*shape], whose shape is the default.

        Raises:
          ValueError: a label is not one of 0..K-1 (traced labels are not checked), or there are no classes.
        """
        self.prior.check_label(label)
        where = jnp.shape(label) if shape is None else as_shape(shape)
        key_cluster, key_latent = jax.random.split(key)
        of_class = self._class_of_cluster() == jnp.asarray(label)[..., None]
        logits = jnp.where(of_class, self.table.log_proportions, -jnp.inf)
        cluster = jax.random.categorical(key_cluster, logits, shape=where)
        return self._draw_from(key_latent, cluster.astype(jnp.int32), where)

    def quantile_of_cluster(self, u: Array, cluster: Array | int) -> Array:
        """Latents whose coordinates in their cluster have CDF values u: u [..., Q], clusters [...] -> [..., Q].

        With diagonal maps these are the quantiles of each latent in its cluster. u = 1/2 is the middle of the cluster.
        """
        self.prior.check_cluster(cluster)
        return self._invert(jnp.asarray(cluster, jnp.int32), self._probabilities(u))

    def log_joint(self, z: Array) -> Array:
        """Log p(z, c) = log pi_c |det W_c| prod_q p_{q,c}(y_q): [..., C] nats."""
        return self._log_joint(self._latent(z))

    def log_responsibilities(self, z: Array) -> Array:
        """Log p(c | z): [..., C] nats."""
        return self._log_responsibilities(self._latent(z))

    def coordinates_of_clusters(self, z: Array) -> Array:
        """Coordinates W_c (z - m_c) in every cluster: [..., C, Q]."""
        return self._coordinates(self._latent(z))

    def log_joint_of_known(self, z: Array, is_known: Array) -> Array:
        """Log p(known coordinates, c), for bool is_known [..., Q]: [..., C] nats. For diagonal maps only."""
        log_density = self._log_densities(self._coordinates(self._latent(z)))
        log_density = jnp.where(is_known[..., None, :], log_density + self.params["log_scale"], 0)
        return self.table.log_proportions + jnp.sum(log_density, axis=-1)

    def log_prob_with_class(self, z: Array, label: Array) -> Array:
        """Log p(z, y), y the class of the cluster: z [..., B, Q], int labels [B] -> [..., B] nats.

        Raises:
          ValueError: see `sample_of_class`.
        """
        self.prior.check_label(label)
        of_class = self._class_of_cluster() == jnp.asarray(label)[..., None]
        return jax.nn.logsumexp(self.log_joint(z), axis=-1, where=of_class)

    def log_class_probabilities(self, z: Array) -> Array:
        """Log p(y | z): [..., K] nats."""
        self.prior.check_has_classes()
        log_share = self.log_responsibilities(z)
        by_class = log_share.reshape(*log_share.shape[:-1], -1, self.prior.num_classes)
        return jax.nn.logsumexp(by_class, axis=-2)

    def log_normalizer(self) -> Array:
        return self.table.log_normalizer

    def _class_of_cluster(self) -> Array:
        return jnp.arange(self.prior.num_clusters, dtype=jnp.int32) % self.prior.num_classes

    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array:
        return self._sample_with_cluster(key, shape, points)[0]

    @drawing
    def _sample_with_cluster(self, key: Array, shape: tuple[int, ...], points: str) -> tuple[Array, Array]:
        # The first coordinate of each point chooses the cluster, and the others go through its quantiles.
        u = uniform_points(key, shape, (self.prior.num_latents + 1,), points, self.dtype)
        below = jnp.cumsum(jnp.exp(self.table.log_proportions))[:-1]
        cluster = jnp.searchsorted(below, u[..., 0], side="right").astype(jnp.int32)
        return self._invert(cluster, u[..., 1:]), cluster

    def _others(self, key: Array, z: Array, is_known: Array, shape: tuple[int, ...]) -> Array:
        key_cluster, key = jax.random.split(key)
        cluster = jax.random.categorical(key_cluster, self.log_joint_of_known(z, is_known), shape=shape)
        return self._draw_from(key, cluster.astype(jnp.int32), shape)

    @functools.partial(jax.jit, static_argnames="shape")
    def _draw_from(self, key: Array, cluster: Array, shape: tuple[int, ...]) -> Array:
        u = uniform_points(key, shape, self.prior.event_shape, "random", self.dtype)
        return self._invert(jnp.broadcast_to(cluster, shape), u)

    @jax.jit
    def _invert(self, cluster: Array, u: Array) -> Array:
        table = self.table.coordinates
        if table is None:
            return self.place(cluster, self.prior.base.quantile({}, u))
        row = cluster[..., None] * self.prior.num_latents + jnp.arange(self.prior.num_latents, dtype=jnp.int32)
        return self.place(cluster, table.quantile(u, jnp.broadcast_to(row, u.shape)))

    def place(self, cluster: Array, y: Array) -> Array:
        """Maps coordinates y [*shape, Q] of the clusters [*shape] to latents."""
        inverse, location, log_scale = self.table.inverse, self.params["location"], self.params["log_scale"]
        if inverse is None or inverse.ndim == 2:
            return affine.from_standard(location[cluster], log_scale[cluster], inverse, y)

        def one(pair: tuple[Array, Array]) -> Array:
            c, y = pair
            return location[c] + jnp.einsum("...ij,...j->...i", inverse[c], y, precision="highest")

        size = y.shape[-1]
        flat = (cluster.reshape(-1), y.reshape(-1, size))
        num, at_once = flat[0].size, max(1, _MAX_MATRICES // size**2)  # in exported programs numbers are symbols
        if not isinstance(num, int) or num <= at_once or is_spread():
            return one((cluster, y))
        return jax.lax.map(one, flat, batch_size=at_once).reshape(y.shape)

    @jax.jit
    def _log_prob(self, z: Array) -> Array:
        return jax.nn.logsumexp(self._log_joint(z), axis=-1)

    @jax.jit
    def _log_joint(self, z: Array) -> Array:
        prior, params = self.prior, self.params
        if prior.is_gaussian and prior.map != "full":
            norms = affine.squared_norms(prior.map, params, z)
            log_density = -0.5 * (norms + prior.num_latents * math.log(2 * math.pi))
        else:
            log_density = jnp.sum(self._log_densities(self._coordinates(z)), axis=-1)
        return self.table.log_proportions + jnp.sum(params["log_scale"], axis=-1) + log_density

    @jax.jit
    def _log_responsibilities(self, z: Array) -> Array:
        return jax.nn.log_softmax(self._log_joint(z), axis=-1)

    @jax.jit
    def _coordinates(self, z: Array) -> Array:
        return affine.to_standard(self.prior.map, self.prior.map_params(self.params), z)

    def _log_densities(self, y: Array) -> Array:
        log_density = self.prior.base.log_prob({}, y)
        if self.prior.is_gaussian:
            return log_density
        return log_density + self._energy(y) - self.table.log_normalizer.T

    def _energy(self, y: Array) -> Array:
        return self.prior.bank.evaluate(self.params["bank"], jnp.clip(y, *self.prior.bank.domain))

    @jax.jit
    def _curvature(self, z: Array) -> Array:
        share = jnp.exp(self._log_responsibilities(z))[..., None]  # [..., C, 1]
        y = self._coordinates(z)
        slope, bend = -y, -jnp.ones_like(y)
        if not self.prior.is_gaussian:
            ones = vary_like(jnp.ones_like(y), y)
            first, second = jax.jvp(lambda y: jax.jvp(self._energy, (y,), (ones,))[1], (y,), (ones,))
            slope, bend = slope + first, bend + second
        w = affine.directions(self.prior.map, self.prior.map_params(self.params))
        if w.ndim == 2:
            slope, bend = w * slope, w**2 * bend
        else:
            turn = functools.partial(jnp.einsum, "cij,...ci->...cj", precision="highest")
            slope, bend = turn(w, slope), turn(w**2, bend)
        mean = jnp.sum(share * slope, axis=-2)
        return mean**2 - jnp.sum(share * (bend + slope**2), axis=-2)

    def _cdf(self, z: Array) -> Array:
        self._need_diagonal("cdf")
        return self._marginal_cdf(z)

    def _density(self, z: Array) -> Array:
        self._need_diagonal("density")
        return self._marginal_density(z)

    def _quantile(self, u: Array) -> Array:
        self._need_diagonal("quantile")
        return self._marginal_quantile(u)

    def _need_diagonal(self, name: str) -> None:
        if not self.prior.has_quantiles:
            raise NotImplementedError(f"a ClusteredPrior has {name} along its latents with map='diagonal' only")

    @jax.jit
    def _marginal_cdf(self, z: Array) -> Array:
        y, table = self._own_scales(z), self.table.coordinates
        return self._mean(jnp.exp(self.prior.base.log_cdf({}, y)) if table is None else table.cdf(y))

    @jax.jit
    def _marginal_density(self, z: Array) -> Array:
        y, table = self._own_scales(z), self.table.coordinates
        density = jnp.exp(self.prior.base.log_prob({}, y)) if table is None else table.density(y)
        return self._mean(density * jnp.exp(self.params["log_scale"]))

    @jax.jit
    def _marginal_quantile(self, u: Array) -> Array:
        """By bisection between the quantiles of single clusters; differentiable by the implicit function theorem."""
        table, location = self.table.coordinates, self.params["location"]
        wide = jnp.broadcast_to(u[..., None, :], (*u.shape[:-1], *location.shape))
        y = self.prior.base.quantile({}, wide) if table is None else table.quantile(wide)
        z = jax.lax.stop_gradient(affine.from_standard(location, self.params["log_scale"], None, y))
        fixed = jax.lax.stop_gradient((self, u))

        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) / 2
            is_above = fixed[0]._marginal_cdf(middle) > fixed[1]
            return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high)

        low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (jnp.min(z, axis=-2), jnp.max(z, axis=-2)))
        found = (low + high) / 2
        error = self._marginal_cdf(found) - u
        # The quotient has the value 0; only its derivative counts.
        return found - (error - jax.lax.stop_gradient(error)) / jax.lax.stop_gradient(self._marginal_density(found))

    def _own_scales(self, z: Array) -> Array:
        """Latents [..., Q] in the coordinates of every cluster under a diagonal map, [..., C, Q]."""
        return jnp.exp(self.params["log_scale"]) * (z[..., None, :] - self.params["location"])

    def _mean(self, values: Array) -> Array:
        return jnp.einsum("c,...cq->...q", jnp.exp(self.table.log_proportions), values, precision="highest")
