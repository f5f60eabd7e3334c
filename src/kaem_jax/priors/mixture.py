"""The mixture prior: each latent z_q is a mixture of P univariate densities (docs/method.md, section 2)."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params
from kaem_jax.priors.proportions import Proportions, init_proportions, log_proportions
from kaem_jax.priors.tabulated import BoundTabulated, TabulatedPrior
from kaem_jax.priors.univariate import DensityTable, component_densities, component_log_weight, init_components
from kaem_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixturePrior(TabulatedPrior):
    """p(z) = prod_q sum_p alpha_{q,p} exp(f_{q,p}(z_q)) pi0(z_q) / Z_{q,p} for z of shape [Q].

    Components are normalised, so alpha is the probability of a component both in training and in sampling. Those of one
    latent share their base density, so the mixture is itself one univariate density: it is tabulated and inverted
    directly, with one uniform number for each latent and no draw of a component.

    Attributes:
      num_components: P, components of each latent.
      proportions: alpha [Q, P]: `uniform` (1/P) or `learned` (softmax of the parameter `logits`).

    Example:
      >>> prior = kaem.MixturePrior(num_latents=2, num_components=5)
      >>> p = prior.bind(prior.init(key))
      >>> p.quantile(p.cdf(jnp.array([0.5, -1.0]))).round(3).tolist()
      [0.5, -1.0]
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

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Array) -> Params:
        shape = (self.num_latents, self.num_components)
        return init_components(key, self.bank, self.base) | init_proportions(self.proportions, shape)

    def log_proportions(self, params: Params) -> Array:
        """Log alpha, [Q, P] nats."""
        return log_proportions(params, (self.num_latents, self.num_components))

    def _bind(self, params: Params) -> "BoundMixture":
        edges, density, lower, upper, log_normalizer = component_densities(self.bank, self.base, params)
        alpha = jnp.exp(self.log_proportions(params))
        density = jnp.sum(alpha[..., None, None] * density, axis=1)
        lower, upper = jnp.sum(alpha * lower, axis=1), jnp.sum(alpha * upper, axis=1)
        base = jax.tree.map(lambda leaf: leaf[:, 0], params["base"])
        table = DensityTable.of_densities(self.base, edges, density, lower, upper, log_normalizer, base)
        return BoundMixture(self, params, table)


class BoundMixture(BoundTabulated):
    """A mixture prior at its parameters."""

    prior: MixturePrior

    @jax.jit
    def _log_prob(self, z: Array) -> Array:
        log_terms = self._log_joint(z)
        if self.prior.bounds is None:
            return jnp.sum(jax.nn.logsumexp(log_terms, axis=-1), axis=-1)
        # Outside the support every term is -inf: there `logsumexp` would have NaN as gradient, and this has 0.
        is_outside = jnp.all(log_terms == -jnp.inf, axis=-1)
        log_sum = jax.nn.logsumexp(jnp.where(is_outside[..., None], 0, log_terms), axis=-1)
        return jnp.sum(jnp.where(is_outside, -jnp.inf, log_sum), axis=-1)

    def log_responsibilities(self, z: Array) -> Array:
        """Log-probability that component p made z_q, for latents [..., Q]: [..., Q, P] nats."""
        return jax.nn.log_softmax(self._log_joint(self._latent(z)), axis=-1)

    def _log_joint(self, z: Array) -> Array:
        """Log alpha_{q,p} p_{q,p}(z_q), [..., Q, P]."""
        log_weight = component_log_weight(self.prior.bank, self.prior.base, self.params, z[..., None])
        return self.prior.log_proportions(self.params) + log_weight - self.table.log_normalizer
