"""The product prior: Q x P independent densities, features v_q = sum_p z_{q,p} (docs/method.md, section 2)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params
from kaem_jax.priors.tabulated import BoundTabulated, TabulatedPrior
from kaem_jax.priors.univariate import DensityTable, component_densities, component_log_weight, init_components
from kaem_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductPrior(TabulatedPrior):
    """log p(z) = sum_{q,p} f_{q,p}(z_{q,p}) + log pi0(z_{q,p}) - log Z_{q,p} for z of shape [Q, P].

    Attributes:
      num_terms: P, the terms of the inner sum.

    Example:
      >>> prior = kaem.ProductPrior(num_latents=2, num_terms=5)
      >>> prior.bind(prior.init(key)).sample(key, (10,)).shape
      (10, 2, 5)
    """

    num_terms: int = setting(1, low=1)

    @property
    def num_each(self) -> int:
        return self.num_terms

    @property
    def event_shape(self) -> tuple[int, int]:
        return (self.num_latents, self.num_terms)

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Array) -> Params:
        return init_components(key, self.bank, self.base)

    def _bind(self, params: Params) -> "BoundProduct":
        table = DensityTable.of_densities(self.base, *component_densities(self.bank, self.base, params), params["base"])
        return BoundProduct(self, params, table)


class BoundProduct(BoundTabulated):
    """A product prior at its parameters."""

    prior: ProductPrior

    @jax.jit
    def _log_prob(self, z: Array) -> Array:
        log_weight = component_log_weight(self.prior.bank, self.prior.base, self.params, z)
        return jnp.sum(log_weight - self.table.log_normalizer, axis=(-2, -1))

    def _features(self, z: Array) -> Array:
        return jnp.sum(z, axis=-1)
