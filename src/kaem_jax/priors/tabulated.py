"""Product and mixture priors: exact draws from tabulated univariate densities (docs/method.md, section 2)."""

import abc
import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.transforms import vary_like
from kaem_jax.kan.activations import BaseActivation
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.priors.base import BoundPrior, Params, Prior, Proportions, drawing, init_proportions, log_proportions
from kaem_jax.priors.base_density import BaseDensity, BaseDensityName, make_base_density
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.priors.univariate import DensityTable, component_densities, component_log_weight, init_components
from kaem_jax.settings import setting
from kaem_jax.settings.registry import BASES


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabulatedPrior(Prior):
    """A prior over z made of tabulated univariate densities.

    Attributes:
      num_latents: Q, the width of the decoder's input.
      basis: family of the basis functions of the energies f.
      grid_size: number of grid intervals.
      domain: (low, high), the ends of the grid and the support of a bounded base density. Beyond it the energy is
        constant. Must lie above 0 for `lognormal`.
      base_density: pi0, which the energies tilt: `gaussian` (standard normal), `learnable_gaussian` (means and
        deviations learned), `lognormal` (on the positive half-line), `uniform` or `flat` (constant on the domain).
      base_activation: activation that is added to the basis expansion of each energy.
      coefficient_scale: standard deviation of the initial basis coefficients, in nats.
      base_scale: standard deviation of the initial weights of the base activation.
    """

    num_latents: int = setting(low=1)
    basis: Basis = setting(BSpline(), kinds=BASES)
    grid_size: int = setting(20, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)
    base_density: BaseDensityName = "gaussian"
    base_activation: BaseActivation = "silu"
    coefficient_scale: float = setting(0.1, low=0)
    base_scale: float = setting(0.1, low=0)

    shares_argument: ClassVar[bool] = False  # whether the densities of a latent are of the same coordinate

    def __post_init__(self) -> None:
        super().__post_init__()
        hash(self.bank)  # made here, so that what it refuses is refused with the prior
        hash(self.base)

    @property
    @abc.abstractmethod
    def num_each(self) -> int:
        """P, the number of densities of each latent."""

    @functools.cached_property
    def bank(self) -> FunctionBank:
        # Near 0 a lognormal density changes by the same factor over intervals that are even in log z.
        log_spaced = self.base_density == "lognormal"
        return FunctionBank(
            outer=self.num_latents, inner=self.num_each, basis=self.basis, base_activation=self.base_activation,
            num_intervals=self.grid_size, domain=self.domain, log_spaced=log_spaced, shared=self.shares_argument,
            coefficient_scale=self.coefficient_scale, base_scale=self.base_scale,
        )  # fmt: skip

    @functools.cached_property
    def base(self) -> BaseDensity:
        return make_base_density(self.base_density, self.domain, self.grid_size)


class BoundTabulated(BoundPrior):
    """Independent coordinates, each with a tabulated density."""

    prior: TabulatedPrior
    table: DensityTable

    @drawing
    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array:
        u = uniform_points(key, shape, self.prior.event_shape, points, self.table.lower.dtype)
        return self.table.quantile(u)

    @jax.jit
    def _quantile(self, u: Array) -> Array:
        return self.table.quantile(u)

    @jax.jit
    def _cdf(self, z: Array) -> Array:
        return self.table.cdf(z)

    @jax.jit
    def _density(self, z: Array) -> Array:
        return self.table.density(z)

    @jax.jit
    def _curvature(self, z: Array) -> Array:
        # Coordinates are independent: one product of the Hessian with ones gives its diagonal.
        slope = jax.grad(lambda z: jnp.sum(self._log_prob(z)))
        return -jax.jvp(slope, (z,), (vary_like(jnp.ones_like(z), z),))[1]

    def log_normalizer(self) -> Array:
        return self.table.log_normalizer


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixturePrior(TabulatedPrior):
    """p(z) = prod_q sum_p alpha_{q,p} exp(f_{q,p}(z_q)) pi0(z_q) / Z_{q,p} for z [Q].

    Components are normalised and share the base density of their latent. The mixture is itself one univariate density,
    tabulated and inverted directly: a draw takes one uniform number per latent and no draw of a component.

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
        log_weight = component_log_weight(self.prior.bank, self.prior.base, self.params, z[..., None])
        return self.prior.log_proportions(self.params) + log_weight - self.table.log_normalizer
