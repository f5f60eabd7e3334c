"""The mixture prior: each latent z_q a mixture of P univariate densities (method section 2.2)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.prior import inverse_transform
from kaem_jax.prior.base import Params, component_log_weight, component_quadrature, init_components, jit_method
from kaem_jax.prior.cdf_table import CdfTable, make_table
from kaem_jax.prior.reference import Reference

__all__ = ["PROPORTIONS", "MixturePrior"]

PROPORTIONS = ("learned", "uniform")


@dataclasses.dataclass(frozen=True)
class MixturePrior:
    """p(z) = prod_q sum_p alpha_{q,p} exp(f_{q,p}(z_q)) pi0(z_q) / Z_{q,p} for z of shape [Q].

    Components are normalised, so alpha is the probability of a component both in training and in sampling. They share
    grid and reference, so the mixture is itself one univariate density: it is tabulated and inverted directly, with one
    uniform a latent and no draw of a component.

    Attributes:
      bank: the components; needs a shared grid.
      reference: pi0.
      proportions: `uniform` (alpha = 1/P) or `learned` (softmax of the parameter `logits` [Q, P]).
    """

    bank: FunctionBank
    reference: Reference
    proportions: str = "uniform"

    def __post_init__(self):
        if self.proportions not in PROPORTIONS:
            raise ValueError(f"proportions={self.proportions!r} is not known; allowed: {', '.join(PROPORTIONS)}")

    @property
    def centred(self) -> "MixturePrior":
        return self

    @property
    def event_shape(self) -> tuple[int]:
        return (self.bank.outer,)

    @property
    def num_features(self) -> int:
        return self.bank.outer

    @jit_method
    def init(self, key: Array) -> Params:
        params = init_components(key, self.bank, self.reference)
        if self.proportions == "learned":
            params["logits"] = jnp.zeros((self.bank.outer, self.bank.inner), float)
        return params

    def log_proportions(self, params: Params) -> Array:
        """Log alpha, [Q, P] nats."""
        if self.proportions == "learned":
            return jax.nn.log_softmax(params["logits"], axis=-1)
        return jnp.full_like(params["bank"]["basis_weight"], -math.log(self.bank.inner))

    @jit_method
    def tabulate(self, params: Params) -> CdfTable:
        edges, density, lower, upper, log_normalizer = component_quadrature(self.bank, self.reference, params)
        alpha = jnp.exp(self.log_proportions(params))
        density = jnp.sum(alpha[..., None, None] * density, axis=1)
        lower, upper = jnp.sum(alpha * lower, axis=1), jnp.sum(alpha * upper, axis=1)
        reference = jax.tree.map(lambda leaf: leaf[:, 0], params["reference"])
        return make_table(edges[:, 0], density, lower, upper, log_normalizer, reference)

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
        log_weight = component_log_weight(self.bank, self.reference, params, z[..., None])
        log_component = self.log_proportions(params) + log_weight - log_normalizer
        return jnp.sum(jax.nn.logsumexp(log_component, axis=-1), axis=-1)

    @jit_method
    def log_normalizer(self, params: Params) -> Array:
        return component_quadrature(self.bank, self.reference, params)[-1]

    def features(self, table: CdfTable, latent: Array) -> Array:
        del table
        return latent
