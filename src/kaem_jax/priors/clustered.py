"""The clustered prior: a mixture of products of univariate densities (docs/method.md, section 14)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.transforms import vary_like
from kaem_jax.kan.activations import BaseActivation
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.base import Params, component_log_weight, hold_in_domain, log_sum
from kaem_jax.priors.calls import (
    as_table,
    check_probabilities,
    checked_params,
    jit_method,
    jit_sample,
    method_of_latents,
    method_of_params,
    method_of_table,
)
from kaem_jax.priors.cdf_table import CdfTable, make_table
from kaem_jax.priors.mixing import apply_map, inverse_of, unmixing_of
from kaem_jax.priors.proportions import ProportionedPrior
from kaem_jax.priors.quadrature import component_densities
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import Shape, as_shape, check_latent

__all__ = ["ClusteredPrior", "ClusteredTable"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClusteredTable:
    """Tables of the marginal densities and of each cluster's; a pytree, built once for each parameter value.

    Attributes:
      marginal: [Q] densities, mixtures over clusters.
      clusters: [C, Q] densities.
      log_proportions: [C] nats.
      mixing: A [Q, Q], None where the decoder takes the latents themselves.
    """

    marginal: CdfTable
    clusters: CdfTable
    log_proportions: Array
    mixing: Array | None

    @property
    def edges(self) -> Array:
        """[Q, M + 1], see `CdfTable`."""
        return self.marginal.edges

    @property
    def base(self) -> dict[str, Array]:
        """Parameters of the base density, [Q] each."""
        return self.marginal.base

    @property
    def log_normalizer(self) -> Array:
        """[Q, C] log Z of every density, in nats."""
        return self.marginal.log_normalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredPrior(ProportionedPrior):
    """p(z) = sum_c pi_c prod_q exp(f_{q,c}(z_q)) pi0(z_q) / Z_{q,c} for z of shape [Q].

    Sum and product of the mixture prior are exchanged, so the latents depend on each other through the cluster. All
    normalisers are still one-dimensional integrals, and a draw is one categorical and Q inverse transforms. `quantile`,
    `cdf` and `density` are those of the marginals, which are univariate mixtures.

    Clusters that start alike stay alike. By default they start as normal densities whose means are spread by 0.7
    (docs/method.md, section 14).

    Attributes:
      num_clusters: C.
      proportions: pi [C].
      num_classes: K, which divides C; cluster c belongs to class c mod K. 0 where clusters belong to no classes.
      mixing: `learned`: the decoder takes A z with a learned triangular matrix A [Q, Q], and an encoder's approximation
        is diagonal in A z (`kaem_jax.priors.mixing`); or `none`.
    """

    num_clusters: int = setting(10, low=1)
    num_classes: int = setting(0, low=0)
    mixing: Literal["learned", "none"] = "none"
    base_activation: BaseActivation = "identity"
    base_scale: float = setting(0.7, low=0)
    domain: tuple[float, float] = (-4.0, 4.0)
    grid_size: int = setting(10, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes and self.num_clusters % self.num_classes:
            raise ValueError(f"num_classes={self.num_classes} must be 0, or divide num_clusters={self.num_clusters}")

    @property
    def num_each(self) -> int:
        return self.num_clusters

    @property
    def proportions_shape(self) -> tuple[int]:
        return (self.num_clusters,)

    @jit_method
    def init(self, key: Array) -> Params:
        params = super().init(key)
        if self.mixing == "learned":
            params["unmixing"] = jnp.zeros((self.bank.outer, self.bank.outer), float)
        return params

    def unmixing(self, params: Params) -> Array | None:
        """W [Q, Q], by which latents z = W v follow from the decoder's input v; None where they are equal."""
        return unmixing_of(params["unmixing"]) if self.mixing == "learned" else None

    @method_of_table("latent", lambda prior: prior.event_shape)
    def features(self, table: ClusteredTable, latent: Array) -> Array:
        return apply_map(table.mixing, latent)

    @method_of_params
    def tabulate(self, params: Params) -> ClusteredTable:
        edges, density, lower, upper, log_normalizer = component_densities(self.bank, self.base, params)
        log_proportions = self.log_proportions(params)
        pi = jnp.exp(log_proportions)
        base = jax.tree.map(lambda leaf: leaf[:, 0], params["base"])
        marginal = make_table(
            edges[:, 0],
            jnp.einsum("c,qcmk->qmk", pi, density, precision="highest"),
            jnp.sum(pi * lower, axis=1),
            jnp.sum(pi * upper, axis=1),
            log_normalizer,
            base,
        )

        def by_cluster(leaf: Array) -> Array:
            return jnp.swapaxes(jnp.broadcast_to(leaf, (*density.shape[:2], *leaf.shape[2:])), 0, 1)

        clusters = make_table(
            by_cluster(edges),
            by_cluster(density),
            by_cluster(lower),
            by_cluster(upper),
            by_cluster(log_normalizer),
            jax.tree.map(by_cluster, params["base"]),
        )
        unmixing = self.unmixing(params)
        mixing = None if unmixing is None else inverse_of(unmixing)
        return ClusteredTable(marginal, clusters, log_proportions, mixing)

    @jit_sample
    def sample(self, key: Array, table: ClusteredTable, shape: tuple[int, ...] = (), points: str = "random") -> Array:
        return self._draw(key, table, shape, points)[0]

    def sample_with_cluster(
        self, key: Array, table: ClusteredTable, shape: Shape = (), points: str = "random"
    ) -> tuple[Array, Array]:
        """Exact draws and the clusters that made them: [*shape, Q] and int32 [*shape]."""
        return self._draw(key, as_table(self, table), as_shape(shape), points)

    def sample_of_cluster(
        self, key: Array, table: ClusteredTable, cluster: Array | int, shape: Shape | None = None
    ) -> Array:
        """Exact draws of one cluster, or of one for each entry of `cluster` [*shape]: [*shape, Q].

        Without `shape` there is one draw for each entry of `cluster`.

        Raises:
          ValueError: a cluster, where its value can be seen, is not one of 0..C-1.
        """
        self.check_cluster(cluster)
        where = jnp.shape(cluster) if shape is None else as_shape(shape)
        return self._draw_from(key, as_table(self, table), jnp.asarray(cluster, jnp.int32), where)

    def quantile_of_cluster(self, table: ClusteredTable, u: Array, cluster: Array | int) -> Array:
        """Inverse CDF of each latent in the clusters [...]: u in (0, 1), [..., Q] -> [..., Q].

        Raises:
          ValueError: see `sample_of_cluster`; or u is outside 0..1.
        """
        self.check_cluster(cluster)
        u = check_probabilities(check_latent(u, self.event_shape, "u"))
        return self._invert(as_table(self, table), jnp.asarray(cluster, jnp.int32), u)

    def density_of_cluster(self, table: ClusteredTable, z: Array, cluster: Array | int) -> Array:
        """Univariate density of each latent in the clusters [...]: z [..., Q] -> [..., Q].

        Raises:
          ValueError: see `sample_of_cluster`.
        """
        self.check_cluster(cluster)
        return self._density_of(
            as_table(self, table), check_latent(z, self.event_shape, "z"), jnp.asarray(cluster, jnp.int32)
        )

    def check_cluster(self, cluster: Array | int) -> None:
        """Refuses clusters that there are not; see `sample_of_cluster`."""
        _check_member("cluster", cluster, self.num_clusters)

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _draw_from(self, key: Array, table: ClusteredTable, cluster: Array, shape: tuple[int, ...]) -> Array:
        u = uniform_points(key, shape, self.event_shape, "random", table.edges.dtype)
        return self._invert(table, jnp.broadcast_to(cluster, shape), u)

    @method_of_latents
    def log_prob(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        return log_sum(self._log_joint(params, z, table), self.bounds)

    def curvature(self, params: Params, z: Array, table: ClusteredTable) -> Array:
        """-d^2 log p / dz_q^2, [..., Q]: by the derivatives of each cluster's own terms, all coordinates at once."""
        share = jnp.exp(self.log_responsibilities(params, z, table))[..., None, :]  # [..., 1, C]

        def terms(z: Array) -> Array:  # [..., Q, C], each of its own coordinate alone
            return component_log_weight(self.bank, self.base, params, z[..., None])

        ones = vary_like(jnp.ones_like(z), z)
        slope, bend = jax.jvp(lambda z: jax.jvp(terms, (z,), (ones,))[1], (z,), (ones,))
        mean = jnp.sum(share * slope, axis=-1)
        return mean**2 - jnp.sum(share * (bend + slope**2), axis=-1)

    @method_of_latents
    def log_responsibilities(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(c | z), for latents [..., Q]: [..., C] nats."""
        return jax.nn.log_softmax(self._log_joint(params, z, table), axis=-1)

    def log_prob_with_class(self, params: Params, z: Array, label: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(z, y), y the class of the cluster: latents [..., B, Q], int labels [B] -> [..., B] nats.

        Raises:
          ValueError: see `sample_of_class`.
        """
        self.check_label(label)
        z, params = check_latent(z, self.event_shape, "z"), checked_params(params)
        table = None if isinstance(table, Mapping) else table
        of_class = self._class_of_cluster() == jnp.asarray(label)[..., None]
        return log_sum(self._log_joint(params, z, table), self.bounds, of_class)

    def log_class_probabilities(self, params: Params, z: Array, table: ClusteredTable | None = None) -> Array:
        """Log p(y | z), for latents [..., Q]: [..., K] nats."""
        log_share = self.log_responsibilities(params, z, table)
        by_class = log_share.reshape(*log_share.shape[:-1], -1, self._checked_num_classes())
        return jax.nn.logsumexp(by_class, axis=-2)

    def sample_of_class(
        self, key: Array, table: ClusteredTable, label: Array | int, shape: Shape | None = None
    ) -> Array:
        """Exact draws of one class, or of one for each entry of `label` [*shape]: [*shape, Q].

        Without `shape` there is one draw for each entry of `label`.

        Raises:
          ValueError: a label, where its value can be seen, is not one of 0..K-1, or clusters belong to no classes.
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
        """Refuses classes that there are not; see `sample_of_class`."""
        _check_member("label", label, self._checked_num_classes())

    def _checked_num_classes(self) -> int:
        if not self.num_classes:
            raise ValueError("the clusters of this prior belong to no classes: make it with num_classes")
        return self.num_classes

    def _class_of_cluster(self) -> Array:
        return jnp.arange(self.num_clusters, dtype=jnp.int32) % self._checked_num_classes()

    def marginals(self, table: ClusteredTable) -> CdfTable:
        return table.marginal

    def univariate(self, table: ClusteredTable) -> CdfTable:
        return table.clusters

    def _log_joint(self, params: Params, z: Array, table: ClusteredTable | None) -> Array:
        """Log pi_c prod_q p_{q,c}(z_q), [..., C]."""
        log_normalizer = self.log_normalizer(params) if table is None else table.log_normalizer
        z = z[..., None]
        held = hold_in_domain(self.bank, params, z)[..., 0]
        energy = self.bank.contract(params["bank"], held, precision="highest")
        log_base = jnp.sum(self.base.log_prob(params["base"], z), axis=-2)
        return self.log_proportions(params) + energy + log_base - jnp.sum(log_normalizer, axis=0)

    @functools.partial(jax.jit, static_argnums=(0, 3, 4))
    def _draw(self, key: Array, table: ClusteredTable, shape: tuple[int, ...], points: str) -> tuple[Array, Array]:
        """One coordinate of a point chooses the cluster, the others go through its quantiles."""
        u = uniform_points(key, shape, (self.bank.outer + 1,), points, table.edges.dtype)
        below = jnp.cumsum(jnp.exp(table.log_proportions))[:-1]
        cluster = jnp.searchsorted(below, u[..., 0], side="right").astype(jnp.int32)
        return self._invert(table, cluster, u[..., 1:]), cluster

    @jit_method
    def _invert(self, table: ClusteredTable, cluster: Array, u: Array) -> Array:
        """Quantiles of u [*shape, Q] in the clusters [*shape]."""
        return inverse_transform.quantile(self.base, table.clusters, u, self._rows_of(cluster, u))

    @jit_method
    def _density_of(self, table: ClusteredTable, z: Array, cluster: Array) -> Array:
        return inverse_transform.density(self.base, table.clusters, z, self._rows_of(cluster, z))

    def _rows_of(self, cluster: Array, values: Array) -> Array:
        """The rows of a table of clusters with the densities of values [*shape, Q] in the clusters [*shape]."""
        row = cluster[..., None] * self.bank.outer + jnp.arange(self.bank.outer, dtype=jnp.int32)
        return jnp.broadcast_to(row, values.shape)


def _check_member(name: str, index: Array | int, size: int) -> None:
    """Refuses an index that is not one of 0..size-1, unless it is traced."""
    if isinstance(index, jax.core.Tracer):
        return
    found = np.asarray(index)
    if not (np.issubdtype(found.dtype, np.integer) and np.all((found >= 0) & (found < size))):
        raise ValueError(f"{name}={index} must be an integer from 0 to {size - 1}")
