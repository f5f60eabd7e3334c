"""The comonotone prior: the Kolmogorov-Arnold theorem taken literally (docs/method.md, section 2)."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

from kaem_jax.priors.base import BoundPrior, Params, Prior, drawing
from kaem_jax.priors.base_density import BaseDensity
from kaem_jax.priors.tabulated import BoundProduct, ProductPrior
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.settings import setting
from kaem_jax.settings.registry import PRIORS


@dataclasses.dataclass(frozen=True)
class ComonotonePrior(Prior):
    """One uniform u_p gives every z_{q,p} = F_{q,p}^-1(u_p).

    z moves on a P-dimensional curve in R^(Q x P) and has no density there. The latent is therefore epsilon ~ N(0, I) of
    shape [P], with u = Phi(epsilon); the densities act through their quantiles, inside the likelihood. `quantile` maps
    u [..., P] to z [..., Q, P], and `cdf` maps z back to u. `density` and `log_normalizer` are univariate.

    Attributes:
      densities: the product prior of the univariate densities.

    Example:
      >>> prior = kaem.ComonotonePrior(kaem.ProductPrior(num_latents=2, num_terms=5))
      >>> prior.event_shape
      (5,)
    """

    is_standard_normal: ClassVar[bool] = True

    densities: ProductPrior = setting(kinds=PRIORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.densities, ProductPrior):
            raise ValueError(f"densities={self.densities!r} must be a ProductPrior")

    @property
    def base(self) -> BaseDensity:
        return self.densities.base

    @property
    def event_shape(self) -> tuple[int]:
        return (self.densities.num_terms,)

    @property
    def value_shape(self) -> tuple[int, int]:
        return self.densities.event_shape

    @property
    def num_features(self) -> int:
        return self.densities.num_features

    @property
    def bounds(self) -> None:
        return None

    def init(self, key: Array) -> Params:
        return self.densities.init(key)

    def _bind(self, params: Params) -> "BoundComonotone":
        return BoundComonotone(self, params, self.densities._bind(params))


class BoundComonotone(BoundPrior):
    """A comonotone prior at its parameters; `table` is the bound product prior."""

    prior: ComonotonePrior
    table: BoundProduct

    @drawing
    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array:
        return special.ndtri(uniform_points(key, shape, self.prior.event_shape, points, self.table.table.lower.dtype))

    @jax.jit
    def _log_prob(self, z: Array) -> Array:
        return jnp.sum(-0.5 * (z * z + math.log(2 * math.pi)), axis=-1)

    @jax.jit
    def _quantile(self, u: Array) -> Array:
        return self.table.table.quantile(self._share(u))

    @jax.jit
    def _cdf(self, z: Array) -> Array:
        return jnp.mean(self.table.table.cdf(z), axis=-2)

    def _density(self, z: Array) -> Array:
        return self.table._density(z)

    def _curvature(self, z: Array) -> Array:
        return jnp.ones_like(z)

    def log_normalizer(self) -> Array:
        return self.table.log_normalizer()

    @jax.jit
    def _values(self, z: Array) -> Array:
        return self.table.table.normal_quantile(self._share(z))

    @jax.jit
    def _features(self, z: Array) -> Array:
        return jnp.sum(self._values(z), axis=-1)

    def _share(self, coordinates: Array) -> Array:
        shape = (*coordinates.shape[:-1], *self.prior.value_shape)
        return jnp.broadcast_to(coordinates[..., None, :], shape)
