"""The interface of all priors, and functions shared by priors with banks of univariate densities."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.priors.base_density import BaseDensity, Gaussian
from kaem_jax.priors.calls import compiled_method
from kaem_jax.settings import Settings
from kaem_jax.settings.arguments import Shape

Params = dict[str, Any]
Table = Any  # a CdfTable or ClusteredTable; for a neural prior, which has none, its parameters


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundPrior:
    """A prior bound to its parameters: a pytree with pure methods.

        p = prior.bind(params["prior"])
        z = p.sample(key, (1000,))
        p.log_prob(z), p.cdf(z), p.quantile(u)

    Attributes:
      prior: static.
      params: its parameters.
      table: `prior.tabulate(params)`.
    """

    prior: "Prior" = dataclasses.field(metadata=STATIC)
    params: Params
    table: Table

    def sample(self, key: Array, shape: Shape = (), points: str = "random") -> Array:
        """Draws [*shape, *event_shape]; see `Prior.sample`."""
        return self.prior.sample(key, self.table, shape, points)

    def log_prob(self, z: Array) -> Array:
        """Log p(z), [..., *event_shape] to [...] nats."""
        return self.prior.log_prob(self.params, z, self.table)

    def cdf(self, z: Array) -> Array:
        """CDF of each coordinate, [..., *event_shape]."""
        return self.prior.cdf(self.table, z)

    def quantile(self, u: Array) -> Array:
        """Inverse CDF of each coordinate, u in (0, 1) [..., *event_shape]."""
        return self.prior.quantile(self.table, u)

    def density(self, z: Array) -> Array:
        """Univariate density of each coordinate, [..., *event_shape]."""
        return self.prior.density(self.table, z)

    def features(self, z: Array) -> Array:
        """The decoder's input, [..., Q]."""
        return self.prior.features(self.table, z)


class Prior(Settings, abc.ABC):
    """A prior over latents. Static and hashable; every method is pure and composes with jit, vmap and grad.

    Methods accept `params` in place of `table`, and then compute the table.

    Attributes:
      is_normalized: whether `log_prob` is normalised; where it is not, `log_normalizer` raises.
      has_exact_draws: whether `sample` draws from the prior itself, not from chains that approach it.
      is_standard_normal: whether latents are standard normal coordinates, whatever the parameters.

    Raises:
      ValueError: the last axes of a latent are not `event_shape`, u is outside 0..1 (traced values are not checked), or
        `points` is unknown or needs quantiles that the prior lacks.
      NotImplementedError: `quantile`, `cdf` or `density` without `has_quantiles`, `log_normalizer` or
        `curvature` without `is_normalized`.
    """

    is_normalized: ClassVar[bool] = True
    has_exact_draws: ClassVar[bool] = True
    is_standard_normal: ClassVar[bool] = False

    @property
    def has_quantiles(self) -> bool:
        """Whether the coordinates have `quantile`, `cdf` and `density`; if not, these raise."""
        return True

    @property
    def has_exact_conditionals(self) -> bool:
        """Whether `sample_given` can draw some coordinates given others."""
        return self.has_exact_draws and self.has_quantiles

    @functools.cached_property  # which a field may override, unlike a property
    def centred(self) -> "Prior":
        """The prior over z itself, whose coordinates have the univariate densities; self if this prior is one."""
        return self

    @functools.cached_property
    def base(self) -> BaseDensity:
        """pi0, the density that the energies tilt."""
        return Gaussian()

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""

    @property
    def num_features(self) -> int:
        """Q, the width of the decoder's input."""
        return self.event_shape[0]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The support of every latent coordinate, None where it is the real line."""
        return self.base.support

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Initial parameters, one dictionary of arrays."""

    @abc.abstractmethod
    def tabulate(self, params: Params) -> Table:
        """The CDF tables at `params` (`CdfTable`): build once, draw many times."""

    @abc.abstractmethod
    def sample(self, key: Array, table: Table, shape: Shape = (), points: str = "random") -> Array:
        """Draws [*shape, *event_shape] by inverse transform of `random` or `sobol` points, if `has_exact_draws`."""

    @abc.abstractmethod
    def log_prob(self, params: Params, z: Array, table: Table | None = None) -> Array:
        """Log-density of latents [..., *event_shape] in nats, [...]; normalised if `is_normalized`.

        If the result is differentiated in `params`, `table` must be computed from the same traced `params`, or left
        out: otherwise the gradient lacks the term of log Z.
        """

    def bind(self, params: Params) -> BoundPrior:
        """The prior at these parameters, with its table built once."""
        return BoundPrior(self, params, self.tabulate(params))

    def quantile(self, table: Table, u: Array) -> Array:
        """Inverse CDF, coordinate by coordinate: u in (0, 1), [..., *event_shape]."""
        raise self._lacks("quantile")

    def cdf(self, table: Table, z: Array) -> Array:
        """CDF, coordinate by coordinate: [..., *event_shape]."""
        raise self._lacks("cdf")

    def density(self, table: Table, z: Array) -> Array:
        """Univariate density of each coordinate: [..., *event_shape]."""
        raise self._lacks("density")

    def curvature(self, params: Params, z: Array, table: Table) -> Array:
        """-d^2 log p / dz^2 of each coordinate of latents, [..., *event_shape], for Laplace approximations."""
        raise self._lacks("curvature")

    def log_normalizer(self, params: Params) -> Array:
        """Log Z of every univariate density, [Q, P] nats."""
        raise self._lacks("log_normalizer")

    @compiled_method
    def coordinates(self, table: Table, latent: Array) -> Array:
        """The arguments z of the univariate densities for these latents, [..., *centred.event_shape]."""
        return latent

    @compiled_method
    def features(self, table: Table, latent: Array) -> Array:
        """The decoder's input, [..., Q], for latents [..., *event_shape]."""
        return latent

    def _lacks(self, name: str) -> NotImplementedError:
        return NotImplementedError(
            f"a {type(self).__name__} has no {name}: its density is known up to a factor only; use a product, mixture, "
            "clustered or comonotone prior"
        )


def init_components(key: Array, bank: FunctionBank, base: BaseDensity) -> Params:
    """{"bank": ..., "base": ...}: parameters of the functions and of the base densities."""
    return {"bank": bank.init(key), "base": base.init(bank.argument_shape)}


def component_log_weight(bank: FunctionBank, base: BaseDensity, params: Params, z: Array) -> Array:
    """f(z) + log pi0(z), unnormalised, of every component: [..., Q, P'] -> [..., Q, P] nats."""
    # Outside the domain energies are those of its nearer end (docs/method.md, section 3).
    energy = bank.evaluate(params["bank"], jnp.clip(z, *bank.domain))
    return energy + base.log_prob(params["base"], z)
