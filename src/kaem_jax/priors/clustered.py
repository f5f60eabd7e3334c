"""The clustered prior: a mixture of products of univariate densities, each in its own axes (docs/method.md, 14)."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.priors import affine
from kaem_jax.priors.affine import Map
from kaem_jax.priors.base import Params, Prior, Proportions, init_proportions, log_proportions
from kaem_jax.priors.bound_clusters import BoundClusters, ClusteredTable
from kaem_jax.priors.univariate import DensityTable, component_densities
from kaem_jax.settings import setting
from kaem_jax.settings.registry import BASES

DOMAIN = (-5.0, 5.0)  # of a shape, in deviations of its cluster; beyond it the density is normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredPrior(Prior):
    """p(z) = sum_c pi_c |det W_c| prod_q p_{q,c}((W_c (z - m_c))_q) for z [Q], p(y) = exp(f(y)) N(y; 0, 1) / Z.

    A mixture of independent component analysers. With `shape="gaussian"`, f = 0, it is a Gaussian mixture; one cluster
    with a full map is an independent component analysis with learned densities. All normalisers are one-dimensional
    integrals. A draw takes one categorical draw, Q inverse transforms and a linear map.

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
        """The energies f of all C Q coordinates."""
        return FunctionBank(
            outer=self.num_clusters, inner=self.num_latents, basis=self.basis, base_activation="none",
            num_intervals=self.grid_size, domain=DOMAIN, coefficient_scale=0.0,
        )  # fmt: skip

    @property
    def event_shape(self) -> tuple[int]:
        return (self.num_latents,)

    @property
    def has_quantiles(self) -> bool:
        """True for diagonal maps, under which each latent has a univariate mixture density."""
        return self.map == "diagonal"

    @property
    def is_gaussian(self) -> bool:
        return self.shape == "gaussian"

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Array) -> Params:
        key_bank, key_map = jax.random.split(key)
        size = (self.num_clusters, self.num_latents)
        rotates = self.map == "full" and not self.is_gaussian
        params: Params = affine.init_map(key_map, self.map, size, self.spread, rotates)
        params |= init_proportions(self.proportions, (self.num_clusters,))
        return params if self.is_gaussian else params | {"bank": self.bank.init(key_bank)}

    def check_cluster(self, cluster: Array | int) -> None:
        _check_member("cluster", cluster, self.num_clusters)

    def check_label(self, label: Array | int) -> None:
        self.check_has_classes()
        _check_member("label", label, self.num_classes)

    def check_has_classes(self) -> None:
        if not self.num_classes:
            raise ValueError("the clusters of this prior belong to no classes: make it with num_classes")

    def map_params(self, params: Params) -> Params:
        """Parameters of the map, without the rotations of a Gaussian mixture, which do not change it."""
        return {name: leaf for name, leaf in params.items() if name != "rotation" or not self.is_gaussian}

    def _bind(self, params: Params) -> BoundClusters:
        if self.is_gaussian:
            coordinates, size = None, (self.num_latents, self.num_clusters)
            log_normalizer = jnp.zeros(size, params["location"].dtype)
        else:
            own = {"bank": params["bank"], "base": {}}
            coordinates = DensityTable.of_densities(self.base, *component_densities(self.bank, self.base, own), {})
            log_normalizer = coordinates.log_normalizer.T
        inverse = affine.inverse_of(self.map, self.map_params(params))
        proportions = log_proportions(params, (self.num_clusters,))
        return BoundClusters(self, params, ClusteredTable(coordinates, inverse, proportions, log_normalizer))


def _check_member(name: str, index: Array | int, size: int) -> None:
    if isinstance(index, jax.core.Tracer):
        return
    found = np.asarray(index)
    if not (np.issubdtype(found.dtype, np.integer) and np.all((found >= 0) & (found < size))):
        raise ValueError(f"{name}={index} must be an integer from 0 to {size - 1}")
