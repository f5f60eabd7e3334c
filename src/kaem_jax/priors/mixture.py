"""The mixture prior: each latent z_q is a mixture of P univariate densities (docs/method.md, section 2)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params, component_log_weight, init_components, log_sum
from kaem_jax.priors.calls import checked_params, jit_method, method_of_latents, method_of_params
from kaem_jax.priors.cdf_table import CdfTable, make_table
from kaem_jax.priors.proportions import Proportions, init_proportions, log_proportions
from kaem_jax.priors.quadrature import component_densities
from kaem_jax.priors.tabulated import TabulatedPrior
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import Shape, as_shape

__all__ = ["MixturePrior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixturePrior(TabulatedPrior):
    """p(z) = prod_q sum_p alpha_{q,p} exp(f_{q,p}(z_q)) pi0(z_q) / Z_{q,p} for z of shape [Q].

    Components are normalised, so alpha is the probability of a component both in training and in sampling. Those of one
    latent share their base density, so the mixture is itself one univariate density: it is tabulated and inverted
    directly, with one uniform number for each latent and no draw of a component.

    Attributes:
      num_components: P, components of each latent.
      proportions: alpha [Q, P]: `uniform` (1/P) or `learned` (softmax of the parameter `logits`).
    """

    shares_argument: ClassVar[bool] = True

    num_components: int = setting(8, low=1)
    proportions: Proportions = "uniform"

    @property
    def event_shape(self) -> tuple[int]:
        return (self.num_latents,)

    @property
    def num_each(self) -> int:
        return self.num_components

    @jit_method
    def init(self, key: Array) -> Params:
        shape = (self.num_latents, self.num_components)
        return init_components(key, self.bank, self.base) | init_proportions(self.proportions, shape)

    def log_proportions(self, params: Params) -> Array:
        """Log alpha, [Q, P] nats."""
        return log_proportions(params, (self.num_latents, self.num_components))

    @method_of_params
    def tabulate(self, params: Params) -> CdfTable:
        edges, density, lower, upper, log_normalizer = component_densities(self.bank, self.base, params)
        alpha = jnp.exp(self.log_proportions(params))
        density = jnp.sum(alpha[..., None, None] * density, axis=1)
        lower, upper = jnp.sum(alpha * lower, axis=1), jnp.sum(alpha * upper, axis=1)
        base = jax.tree.map(lambda leaf: leaf[:, 0], params["base"])
        return make_table(edges, density, lower, upper, log_normalizer, base)

    @method_of_latents
    def log_prob(self, params: Params, z: Array, table: CdfTable | None = None) -> Array:
        return jnp.sum(log_sum(self._log_joint(params, z, table), self.bounds), axis=-1)

    @method_of_latents
    def log_responsibilities(self, params: Params, z: Array, table: CdfTable | None = None) -> Array:
        """Log-probability that component p made z_q, for latents [..., Q]: [..., Q, P] nats."""
        return jax.nn.log_softmax(self._log_joint(params, z, table), axis=-1)

    def sample_with_component(self, key: Array, params: Params, shape: Shape = ()) -> tuple[Array, Array]:
        """Exact draws of latents and of the components that made them, [*shape, Q] and int32 [*shape, Q].

        Draws z from the mixture, then the component given z; the other order would give the same joint distribution.
        """
        key_latent, key_component = jax.random.split(key)
        params = checked_params(params)
        table = self.tabulate(params)
        z = self.sample(key_latent, table, as_shape(shape))
        component = jax.random.categorical(key_component, self._log_joint(params, z, table))
        return z, component.astype(jnp.int32)

    def _log_joint(self, params: Params, z: Array, table: CdfTable | None) -> Array:
        """Log alpha_{q,p} p_{q,p}(z_q), [..., Q, P]."""
        log_normalizer = self.log_normalizer(params) if table is None else table.log_normalizer
        log_weight = component_log_weight(self.bank, self.base, params, z[..., None])
        return self.log_proportions(params) + log_weight - log_normalizer
