"""The clustered prior: a mixture of products of univariate densities, each in its own axes (docs/method.md, 14)."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.transforms import vary_like
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.priors import affine, inverse_transform
from kaem_jax.priors.affine import Map
from kaem_jax.priors.base import Params, Prior
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.calls import as_table, compiled_method
from kaem_jax.priors.cdf_table import make_table
from kaem_jax.priors.clustered_table import ClusteredTable, marginal_cdf, marginal_density, marginal_quantile
from kaem_jax.priors.proportions import Proportions, init_proportions, log_proportions
from kaem_jax.priors.quadrature import component_densities, component_log_normalizer
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import Shape, as_shape
from kaem_jax.settings.registry import BASES

DOMAIN = (-5.0, 5.0)  # of a shape, in deviations of its cluster; beyond it the density is normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredPrior(Prior):
    """p(z) = sum_c pi_c |det W_c| prod_q p_{q,c}((W_c (z - m_c))_q) for z [Q], p(y) = exp(f(y)) N(y; 0, 1) / Z.

    A mixture of independent component analysers. With `shape="gaussian"`, f = 0, it is a Gaussian mixture. One cluster
    with a full map is an independent component analysis with learned densities. All normalisers are one-dimensional
    integrals, and a draw takes one categorical draw, Q inverse transforms and a linear map.

    Attributes:
      num_latents: Q.
      num_clusters: C.
      map: W of each cluster: `diagonal` (own scales), `shared` (one triangular matrix for all, then own scales) or
        `full` (own matrices); see `kaem_jax.priors.affine`.
      shape: `learned` (f is an expansion in the basis, 0 at the start) or `gaussian` (f = 0).
      basis: family of the basis functions of f.
      grid_size: intervals of the grid of f, which covers five deviations of the cluster on either side.
      proportions: pi [C]: `uniform` (1/C) or `learned` (softmax of the parameter `logits`).
      num_classes: K, a divisor of C; cluster c belongs to class c mod K. 0: no classes.
      spread: standard deviation of the initial locations; clusters with equal starts would stay equal.

    Example:
      >>> prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3)
      >>> p = prior.bind(prior.init(key))
      >>> z = p.sample(key, (1000,))
      >>> z.shape, p.log_prob(z).shape
      ((1000, 2), (1000,))
    """

    num_latents: int = setting(low=1)
    num_clusters: int = setting(10, low=1)
    map: Map = "diagonal"
    shape: Literal["learned", "gaussian"] = "learned"
    basis: Basis = setting(BSpline(), kinds=BASES)
    grid_size: int = setting(12, low=1)
    proportions: Proportions = "uniform"
    num_classes: int = setting(0, low=0)
    spread: float = setting(0.7, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes and self.num_clusters % self.num_classes:
            raise ValueError(f"num_classes={self.num_classes} must be 0, or divide num_clusters={self.num_clusters}")

    @functools.cached_property
    def bank(self) -> FunctionBank:
        """The energies f of all C Q coordinates, on one grid."""
        return FunctionBank(
            outer=self.num_clusters,
            inner=self.num_latents,
            basis=self.basis,
            base_activation="none",
            num_intervals=self.grid_size,
            domain=DOMAIN,
            coefficient_scale=0.0,
        )

    @property
    def event_shape(self) -> tuple[int]:
        return (self.num_latents,)

    @property
    def has_quantiles(self) -> bool:
        """True for diagonal maps: each latent then has a univariate mixture density."""
        return self.map == "diagonal"

    @property
    def is_gaussian(self) -> bool:
        """Whether f = 0."""
        return self.shape == "gaussian"

    @compiled_method
    def init(self, key: Array) -> Params:
        key_bank, key_map = jax.random.split(key)
        size = (self.num_clusters, self.num_latents)
        rotates = self.map == "full" and not self.is_gaussian
        params: Params = affine.init_map(key_map, self.map, size, self.spread, rotates)
        params |= init_proportions(self.proportions, (self.num_clusters,))
        return params if self.is_gaussian else params | {"bank": self.bank.init(key_bank)}

    def log_proportions(self, params: Params) -> Array:
        """Log pi, [C] nats."""
        return log_proportions(params, (self.num_clusters,))

    @compiled_method
    def log_normalizer(self, params: Params) -> Array:
        if self.is_gaussian:
            return jnp.zeros((self.num_latents, self.num_clusters), params["location"].dtype)
        return component_log_normalizer(self.bank, self.base, {"bank": params["bank"], "base": {}}).T

    @compiled_method
    def tabulate(self, params: Params) -> ClusteredTable:
        coordinates, log_normalizer = None, self.log_normalizer(params)
        if not self.is_gaussian:
            coordinates = make_table(
                *component_densities(self.bank, self.base, {"bank": params["bank"], "base": {}}), {}
            )
        inverse = affine.inverse_of(self.map, self._map(params))
        return ClusteredTable(
            coordinates,
            params["location"],
            params["log_scale"],
            inverse,
            self.log_proportions(params),
            log_normalizer,
        )

    def sample(self, key: Array, table: ClusteredTable, shape: Shape = (), points: str = "random") -> Array:
        return self.sample_with_cluster(key, table, shape, points)[0]

    @compiled_method
    def sample_with_cluster(
        self, key: Array, table: ClusteredTable, shape: tuple[int, ...] = (), points: str = "random"
    ) -> tuple[Array, Array]:
        """Exact draws and the clusters that made them: [*shape, Q] and int32 [*shape]."""
        # The first coordinate of each point chooses the cluster, and the others go through its quantiles.
        u = uniform_points(key, shape, (self.num_latents + 1,), points, table.dtype)
        below = jnp.cumsum(jnp.exp(table.log_proportions))[:-1]
        cluster = jnp.searchsorted(below, u[..., 0], side="right").astype(jnp.int32)
        return self._invert(table, cluster, u[..., 1:]), cluster

    def sample_of_cluster(
        self, key: Array, table: ClusteredTable, cluster: Array | int, shape: Shape | None = None
    ) -> Array:
        """Exact draws of one cluster, or of the clusters [*shape]: [*shape, Q].

        `shape` defaults to that of `cluster`.

        Raises:
          ValueError: a cluster is not one of 0..C-1; traced clusters are not checked.
        """
        self.check_cluster(cluster)
        where = jnp.shape(cluster) if shape is None else shape
        return self._draw_from(key, table, jnp.asarray(cluster, jnp.int32), where)

    def quantile_of_cluster(self, table: ClusteredTable, u: Array, cluster: Array | int) -> Array:
        """Latents whose coordinates in their cluster have CDF values u: u [..., Q], clusters [...] -> [..., Q].

        With diagonal maps these are the quantiles of each latent in its cluster. u = 1/2 is the middle of the cluster.

        Raises:
          ValueError: see `sample_of_cluster`; or u is outside 0..1.
        """
        self.check_cluster(cluster)
        return self._invert(table, jnp.asarray(cluster, jnp.int32), u)

    def check_cluster(self, cluster: Array | int) -> None:
        """Refuses clusters outside 0..C-1; see `sample_of_cluster`."""
        _check_member("cluster", cluster, self.num_clusters)

    @compiled_method
    def log_joint(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(z, c) = log pi_c |det W_c| prod_q p_{q,c}(y_q), for latents [..., Q]: [..., C] nats."""
        if self.is_gaussian and self.map != "full":
            norms = affine.squared_norms(self.map, params, z)
            log_density = -0.5 * (norms + self.num_latents * math.log(2 * math.pi))
        else:
            log_density = jnp.sum(self._log_densities(params, self.coordinates_of_clusters(params, z), table), axis=-1)
        return self.log_proportions(params) + jnp.sum(params["log_scale"], axis=-1) + log_density

    @compiled_method
    def log_prob(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        return jax.nn.logsumexp(self.log_joint(params, z, table), axis=-1)

    @compiled_method
    def coordinates_of_clusters(self, params: Params, z: Array) -> Array:
        """The coordinates W_c (z - m_c) of latents [..., Q] in every cluster: [..., C, Q]."""
        return affine.to_standard(self.map, self._map(params), z)

    def curvature(self, params: Params, z: Array, table: ClusteredTable) -> Array:
        """-d^2 log p / dz_q^2, [..., Q], from the derivatives of each coordinate's own log-density."""
        share = jnp.exp(self.log_responsibilities(params, z, table))[..., None]  # [..., C, 1]
        y = self.coordinates_of_clusters(params, z)
        slope, bend = -y, -jnp.ones_like(y)
        if not self.is_gaussian:
            of_f, ones = lambda y: self._energy(params, y), vary_like(jnp.ones_like(y), y)
            first, second = jax.jvp(lambda y: jax.jvp(of_f, (y,), (ones,))[1], (y,), (ones,))
            slope, bend = slope + first, bend + second
        w = affine.directions(self.map, self._map(params))
        if w.ndim == 2:
            slope, bend = w * slope, w**2 * bend
        else:
            turn = functools.partial(jnp.einsum, "cij,...ci->...cj", precision="highest")
            slope, bend = turn(w, slope), turn(w**2, bend)
        mean = jnp.sum(share * slope, axis=-2)
        return mean**2 - jnp.sum(share * (bend + slope**2), axis=-2)

    @compiled_method
    def log_responsibilities(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(c | z), for latents [..., Q]: [..., C] nats."""
        return jax.nn.log_softmax(self.log_joint(params, z, table), axis=-1)

    def log_joint_of_known(
        self, params: Params, z: Array, is_known: Array, table: ClusteredTable | None = None
    ) -> Array:
        """Log p(known coordinates, c), for latents and bool [..., Q]: [..., C] nats. For diagonal maps only."""
        log_density = self._log_densities(params, self.coordinates_of_clusters(params, z), table)
        log_density = jnp.where(is_known[..., None, :], log_density + params["log_scale"], 0)
        return self.log_proportions(params) + jnp.sum(log_density, axis=-1)

    def log_prob_with_class(self, params: Params, z: Array, label: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(z, y), where y is the class of the cluster: latents [..., B, Q], int labels [B] -> [..., B] nats.

        Raises:
          ValueError: see `sample_of_class`.
        """
        self.check_label(label)
        of_class = self._class_of_cluster() == jnp.asarray(label)[..., None]
        return jax.nn.logsumexp(self.log_joint(params, z, table), axis=-1, where=of_class)

    def log_class_probabilities(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(y | z), for latents [..., Q]: [..., K] nats."""
        log_share = self.log_responsibilities(params, z, table)
        by_class = log_share.reshape(*log_share.shape[:-1], -1, self._checked_num_classes())
        return jax.nn.logsumexp(by_class, axis=-2)

    def sample_of_class(
        self, key: Array, table: ClusteredTable, label: Array | int, shape: Shape | None = None
    ) -> Array:
        """Exact draws of one class, or of the classes `label` [*shape]: [*shape, Q].

        `shape` defaults to that of `label`.

        Raises:
          ValueError: a label is not one of 0..K-1 (traced labels are not checked), or clusters belong to no classes.
        """
        self.check_label(label)
        where = jnp.shape(label) if shape is None else as_shape(shape)
        table = as_table(self, table)
        key_cluster, key_latent = jax.random.split(key)
        of_class = self._class_of_cluster() == jnp.asarray(label)[..., None]
        logits = jnp.where(of_class, table.log_proportions, -jnp.inf)
        cluster = jax.random.categorical(key_cluster, logits, shape=where)
        return self._draw_from(key_latent, table, cluster.astype(jnp.int32), where)

    def check_label(self, label: Array | int) -> None:
        """Refuses labels outside 0..K-1; see `sample_of_class`."""
        _check_member("label", label, self._checked_num_classes())

    def _checked_num_classes(self) -> int:
        if not self.num_classes:
            raise ValueError("the clusters of this prior belong to no classes: make it with num_classes")
        return self.num_classes

    def _class_of_cluster(self) -> Array:
        return jnp.arange(self.num_clusters, dtype=jnp.int32) % self._checked_num_classes()

    @compiled_method
    def cdf(self, table: ClusteredTable, z: Array) -> Array:
        return marginal_cdf(self._with_quantiles("cdf"), table, z)

    @compiled_method
    def density(self, table: ClusteredTable, z: Array) -> Array:
        return marginal_density(self._with_quantiles("density"), table, z)

    @compiled_method
    def quantile(self, table: ClusteredTable, u: Array) -> Array:
        return marginal_quantile(self._with_quantiles("quantile"), table, u)

    def _with_quantiles(self, name: str) -> BaseDensity:
        if not self.has_quantiles:
            raise NotImplementedError(f"a ClusteredPrior has {name} along its latents with map='diagonal' only")
        return self.base

    def _energy(self, params: Params, y: Array) -> Array:
        """The energy f of each coordinate, [..., C, Q]."""
        return self.bank.evaluate(params["bank"], jnp.clip(y, *DOMAIN))

    def _map(self, params: Params) -> Params:
        """The parameters of the map; a Gaussian mixture drops rotations, which do not change it."""
        return {name: leaf for name, leaf in params.items() if name != "rotation" or not self.is_gaussian}

    def _log_densities(self, params: Params, y: Array, table: ClusteredTable | None) -> Array:
        """Log p_{q,c}(y_q) of coordinates [..., C, Q]."""
        log_density = self.base.log_prob({}, y)
        if self.is_gaussian:
            return log_density
        log_normalizer = self.log_normalizer(params) if table is None else table.log_normalizer
        return log_density + self._energy(params, y) - log_normalizer.T

    @compiled_method
    def _draw_from(self, key: Array, table: ClusteredTable, cluster: Array, shape: tuple[int, ...]) -> Array:
        u = uniform_points(key, shape, self.event_shape, "random", table.dtype)
        return self._invert(table, jnp.broadcast_to(cluster, shape), u)

    @compiled_method
    def _invert(self, table: ClusteredTable, cluster: Array, u: Array) -> Array:
        """Maps probabilities u [*shape, Q] in the clusters [*shape] to latents."""
        if table.coordinates is None:
            y = self.base.quantile({}, u)
        else:
            row = cluster[..., None] * self.num_latents + jnp.arange(self.num_latents, dtype=jnp.int32)
            y = inverse_transform.quantile(self.base, table.coordinates, u, jnp.broadcast_to(row, u.shape))
        return table.place(cluster, y)


def _check_member(name: str, index: Array | int, size: int) -> None:
    """Refuses an index that is not one of 0..size-1, unless it is traced."""
    if isinstance(index, jax.core.Tracer):
        return
    found = np.asarray(index)
    if not (np.issubdtype(found.dtype, np.integer) and np.all((found >= 0) & (found < size))):
        raise ValueError(f"{name}={index} must be an integer from 0 to {size - 1}")
