"""The product prior: Q x P independent densities, features v_q = sum_p z_{q,p} (docs/method.md, section 2)."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params, component_log_weight, init_components
from kaem_jax.priors.calls import compiled_method
from kaem_jax.priors.cdf_table import CdfTable, make_table
from kaem_jax.priors.quadrature import component_densities
from kaem_jax.priors.tabulated import TabulatedPrior
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

    @compiled_method
    def init(self, key: Array) -> Params:
        return init_components(key, self.bank, self.base)

    @compiled_method
    def tabulate(self, params: Params) -> CdfTable:
        return make_table(*component_densities(self.bank, self.base, params), params["base"])

    @compiled_method
    def log_prob(self, params: Params, z: Array, table: CdfTable | None = None) -> Array:
        log_normalizer = self.log_normalizer(params) if table is None else table.log_normalizer
        log_weight = component_log_weight(self.bank, self.base, params, z)
        return jnp.sum(log_weight - log_normalizer, axis=(-2, -1))

    @compiled_method
    def features(self, table: CdfTable, latent: Array) -> Array:
        return jnp.sum(latent, axis=-1)
