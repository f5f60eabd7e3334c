"""What the product and the mixture prior share: exact draws from tabulated univariate densities."""

import abc
import dataclasses
import functools
from typing import Self

import jax
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.prior import inverse_transform
from kaem_jax.prior.base import Params, component_quadrature, jit_method
from kaem_jax.prior.cdf_table import CdfTable
from kaem_jax.prior.reference import Reference

__all__ = ["TabulatedPrior"]


@dataclasses.dataclass(frozen=True)
class TabulatedPrior(abc.ABC):
    """A prior over z whose coordinates are independent and have tabulated densities.

    Attributes:
      bank: the energies f.
      reference: pi0.
    """

    bank: FunctionBank
    reference: Reference

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]: ...

    @property
    def centred(self) -> Self:
        return self

    @property
    def num_features(self) -> int:
        return self.bank.outer

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
    def log_normalizer(self, params: Params) -> Array:
        return component_quadrature(self.bank, self.reference, params)[-1]
