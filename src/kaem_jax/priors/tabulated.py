"""What product, mixture and clustered priors share: exact draws from tabulated univariate densities."""

import abc
import dataclasses
from typing import Any, ClassVar, Self

from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.base import Params
from kaem_jax.priors.base_density import ReferenceDensity
from kaem_jax.priors.calls import jit_sample, method_of_params, method_of_table
from kaem_jax.priors.cdf_table import CdfTable
from kaem_jax.priors.quadrature import component_log_normalizer
from kaem_jax.priors.uniform import uniform_points

__all__ = ["TabulatedPrior"]


@dataclasses.dataclass(frozen=True)
class TabulatedPrior(abc.ABC):
    """A prior over z that is made of tabulated univariate densities.

    Attributes:
      bank: the energies f.
      reference: pi0.
    """

    is_normalized: ClassVar[bool] = True
    has_quantiles: ClassVar[bool] = True
    has_exact_draws: ClassVar[bool] = True
    is_standard_normal: ClassVar[bool] = False

    bank: FunctionBank
    reference: ReferenceDensity

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]: ...

    @abc.abstractmethod
    def tabulate(self, params: Params) -> Any: ...

    @property
    def centred(self) -> Self:
        return self

    @property
    def num_features(self) -> int:
        return self.bank.outer

    @property
    def bounds(self) -> tuple[float, float] | None:
        return self.reference.support

    @jit_sample
    def sample(self, key: Array, table: Any, shape: tuple[int, ...] = (), points: str = "random") -> Array:
        u = uniform_points(key, shape, self.event_shape, points, table.edges.dtype)
        return self.quantile(table, u)

    def marginals(self, table: Any) -> CdfTable:
        """The univariate density of each coordinate, [*event_shape]."""
        return table

    def univariate(self, table: Any) -> CdfTable:
        """All univariate densities that the prior is made of, with any leading axes: [..., *event_shape]."""
        return table

    @method_of_table("latent", lambda prior: prior.event_shape)
    def coordinates(self, table: Any, latent: Array) -> Array:
        del table
        return latent

    @method_of_table("u", lambda prior: prior.event_shape)
    def quantile(self, table: Any, u: Array) -> Array:
        return inverse_transform.quantile(self.reference, self.marginals(table), u)

    @method_of_table("z", lambda prior: prior.event_shape)
    def cdf(self, table: Any, z: Array) -> Array:
        return inverse_transform.cdf(self.reference, self.marginals(table), z)

    @method_of_table("z", lambda prior: prior.event_shape)
    def density(self, table: Any, z: Array) -> Array:
        return inverse_transform.density(self.reference, self.marginals(table), z)

    @method_of_params
    def log_normalizer(self, params: Params) -> Array:
        return component_log_normalizer(self.bank, self.reference, params)
