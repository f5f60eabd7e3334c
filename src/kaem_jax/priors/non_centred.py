"""Non-centred priors: the latent is a standard normal epsilon, and the densities act through their quantiles.

epsilon ~ N(0, I) -> u = Phi(epsilon) -> z = F^-1(u) (docs/method.md, section 2). All of a prior's parameters then act
inside the likelihood, through `features`; log p(epsilon) has none.
"""

import dataclasses
import math
import typing
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jax.scipy import special

from kaem_jax.priors import inverse_transform
from kaem_jax.priors.base import Params, Prior
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.calls import compiled_method
from kaem_jax.priors.cdf_table import CdfTable
from kaem_jax.priors.mixture import MixturePrior
from kaem_jax.priors.product import ProductPrior
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.settings import setting
from kaem_jax.settings.fields import hints_of
from kaem_jax.settings.registry import PRIORS


@dataclasses.dataclass(frozen=True)
class NonCentredPrior(Prior):
    """A product or mixture prior whose latents are standard normal coordinates, of the same shape as before.

    `quantile`, `cdf` and `density` still work on z; `sample`, `log_prob` and `features` work on epsilon.

    Attributes:
      centred: the prior over z.

    Example:
      >>> prior = kaem.NonCentredPrior(kaem.MixturePrior(num_latents=2, num_components=5))
      >>> prior.is_standard_normal
      True
    """

    is_standard_normal: ClassVar[bool] = True

    centred: ProductPrior | MixturePrior = setting(kinds=PRIORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = typing.get_args(hints_of(type(self))["centred"]) or (hints_of(type(self))["centred"],)
        if not isinstance(self.centred, allowed):
            names = " or ".join(cls.__name__ for cls in allowed)
            raise ValueError(f"centred={self.centred!r} must be a {names}")

    @property
    def base(self) -> BaseDensity:
        return self.centred.base

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.centred.event_shape

    @property
    def num_features(self) -> int:
        return self.centred.num_features

    def init(self, key: Array) -> Params:
        return self.centred.init(key)

    def tabulate(self, params: Params) -> CdfTable:
        return self.centred.tabulate(params)

    @property
    def bounds(self) -> None:
        return None

    @compiled_method
    def sample(self, key: Array, table: CdfTable, shape: tuple[int, ...] = (), points: str = "random") -> Array:
        return special.ndtri(uniform_points(key, shape, self.event_shape, points, table.lower.dtype))

    def quantile(self, table: CdfTable, u: Array) -> Array:
        return self.centred.quantile(table, u)

    def cdf(self, table: CdfTable, z: Array) -> Array:
        return self.centred.cdf(table, z)

    def density(self, table: CdfTable, z: Array) -> Array:
        return self.centred.density(table, z)

    @compiled_method
    def log_prob(self, params: Params, z: Array, table: CdfTable | None = None) -> Array:
        axes = tuple(range(-len(self.event_shape), 0))
        return jnp.sum(-0.5 * (z * z + math.log(2 * math.pi)), axis=axes)

    def curvature(self, params: Params, z: Array, table: CdfTable) -> Array:
        """-d^2 log p / dz^2 of each coordinate, [..., *event_shape]: 1 everywhere."""
        return jnp.ones_like(z)

    def log_normalizer(self, params: Params) -> Array:
        return self.centred.log_normalizer(params)

    @compiled_method
    def coordinates(self, table: CdfTable, latent: Array) -> Array:
        return inverse_transform.normal_quantile(self.base, table, latent)

    @compiled_method
    def features(self, table: CdfTable, latent: Array) -> Array:
        return self.centred.features(table, self.coordinates(table, latent))


@dataclasses.dataclass(frozen=True)
class ComonotonePrior(NonCentredPrior):
    """The theorem taken literally: one uniform u_p gives every z_{q,p} = F_{q,p}^-1(u_p) (docs/method.md, section 2).

    z moves on a P-dimensional curve in R^(Q x P) and has no density there, so the latent is epsilon of shape [P].
    `quantile` maps u [..., P] to z [..., Q, P]. `cdf` maps such a z back to u [..., P], a mean over q: all q give the
    same u. `density` and `log_normalizer` are those of the univariate densities.

    Example:
      >>> prior = kaem.ComonotonePrior(kaem.ProductPrior(num_latents=2, num_terms=5))
      >>> prior.event_shape
      (5,)
    """

    centred: ProductPrior = setting(kinds=PRIORS)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.centred.num_terms,)

    @compiled_method
    def quantile(self, table: CdfTable, u: Array) -> Array:
        return self.centred.quantile(table, self._share(u))

    @compiled_method
    def cdf(self, table: CdfTable, z: Array) -> Array:
        return jnp.mean(self.centred.cdf(table, z), axis=-2)

    @compiled_method
    def coordinates(self, table: CdfTable, latent: Array) -> Array:
        return inverse_transform.normal_quantile(self.base, table, self._share(latent))

    def _share(self, coordinates: Array) -> Array:
        """[..., P] to [..., Q, P]."""
        shape = (*coordinates.shape[:-1], *self.centred.event_shape)
        return jnp.broadcast_to(coordinates[..., None, :], shape)
