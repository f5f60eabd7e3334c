"""The product prior: Q x P independent univariate densities, features v_q = sum_p z_{q,p} (method section 2.1)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.prior import inverse_transform
from kaem_jax.prior.base import Params, component_log_weight, component_quadrature, init_components, jit_method
from kaem_jax.prior.cdf_table import CdfTable, make_table
from kaem_jax.prior.reference import Reference

__all__ = ["ProductPrior"]


@dataclasses.dataclass(frozen=True)
class ProductPrior:
    """log p(z) = sum_{q,p} f_{q,p}(z_{q,p}) + log pi0(z_{q,p}) - log Z_{q,p} for z of shape [Q, P]."""

    bank: FunctionBank
    reference: Reference

    @property
    def centred(self) -> "ProductPrior":
        return self

    @property
    def event_shape(self) -> tuple[int, int]:
        return (self.bank.outer, self.bank.inner)

    @property
    def num_features(self) -> int:
        return self.bank.outer

    @jit_method
    def init(self, key: Array) -> Params:
        return init_components(key, self.bank, self.reference)

    @jit_method
    def tabulate(self, params: Params) -> CdfTable:
        return make_table(*component_quadrature(self.bank, self.reference, params), params["reference"])

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def sample(self, key: Array, table: CdfTable, shape: tuple[int, ...] = ()) -> Array:
        u = inverse_transform.open_uniform(key, (*shape, *self.event_shape), table.edges.dtype)
        return self.quantile(table, u)

    @jit_method
    def quantile(self, table: CdfTable, u: Array) -> Array:
        return inverse_transform.quantile(self.reference, table, u)

    @jit_method
    def cdf(self, table: CdfTable, z: Array) -> Array:
        return inverse_transform.cdf(self.reference, table, z)

    @jit_method
    def density(self, table: CdfTable, z: Array) -> Array:
        return inverse_transform.density(self.reference, table, z)

    @jit_method
    def log_prob(self, params: Params, z: Array, table: CdfTable | None = None) -> Array:
        log_normalizer = self.log_normalizer(params) if table is None else table.log_normalizer
        log_weight = component_log_weight(self.bank, self.reference, params, z)
        return jnp.sum(log_weight - log_normalizer, axis=(-2, -1))

    @jit_method
    def log_normalizer(self, params: Params) -> Array:
        return component_quadrature(self.bank, self.reference, params)[-1]

    def features(self, table: CdfTable, latent: Array) -> Array:
        del table
        return jnp.sum(latent, axis=-1)
