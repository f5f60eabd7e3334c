"""What product and mixture priors share: exact draws from tabulated univariate densities."""

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
from kaem_jax.priors.base import BoundPrior, Prior, drawing
from kaem_jax.priors.base_density import BaseDensity, BaseDensityName, make_base_density
from kaem_jax.priors.uniform import uniform_points
from kaem_jax.priors.univariate import DensityTable
from kaem_jax.settings import setting
from kaem_jax.settings.registry import BASES


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabulatedPrior(Prior):
    """A prior over z made of tabulated univariate densities.

    Attributes:
      num_latents: Q, the width of the decoder's input.
      basis: family of the basis functions of the energies f.
      grid_size: number of grid intervals.
      domain: (low, high), the ends of the grid and the support of a bounded base density. Other base densities have
        tails outside, where the energy is constant. Must lie above 0 for `lognormal`.
      base_density: pi0, which the energies tilt: `gaussian` (standard normal), `learnable_gaussian` (mean and deviation
        of every latent learned), `lognormal` (on the positive half-line), `uniform` or `flat` (constant on the domain).
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
        """P, how many densities belong to each latent."""

    @functools.cached_property
    def bank(self) -> FunctionBank:
        """The energies f."""
        return FunctionBank(
            outer=self.num_latents,
            inner=self.num_each,
            basis=self.basis,
            base_activation=self.base_activation,
            num_intervals=self.grid_size,
            domain=self.domain,
            # Near 0 a lognormal density changes by the same factor over intervals that are even in log z.
            log_spaced=self.base_density == "lognormal",
            shared=self.shares_argument,
            coefficient_scale=self.coefficient_scale,
            base_scale=self.base_scale,
        )

    @functools.cached_property
    def base(self) -> BaseDensity:
        """pi0."""
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
