"""The prior as proposal: the same for all data."""

import dataclasses
import math

import jax
from jax import Array

from kaem_jax.devices.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.base import Table
from kaem_jax.settings import Settings

__all__ = ["PriorProposal"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _FittedPrior:
    params: Params
    table: Table
    prior: Prior = dataclasses.field(metadata=STATIC)
    num_data: int = dataclasses.field(metadata=STATIC)

    def draw(self, key: Array, num: int) -> Array:
        return self.prior.sample(key, self.table, (num, self.num_data))

    def log_prob(self, z: Array) -> Array:
        return self.prior.log_prob(self.params, z, self.table)

    def undefended(self) -> "_FittedPrior":
        return self

    def whiten(self, z: Array) -> Array:
        shape = self.prior.event_shape
        return z.reshape(*z.shape[: z.ndim - len(shape)], math.prod(shape))

    def unwhiten(self, y: Array) -> Array:
        return y.reshape(*y.shape[:-1], *self.prior.event_shape)


@dataclasses.dataclass(frozen=True)
class PriorProposal(Settings):
    """Q(z | x) = p(z)."""

    def fit(self, key: Array, model: Model, params: Params, x: Array, table: Table) -> _FittedPrior:
        return _FittedPrior(params["prior"], table, model.prior, len(x))

    @property
    def finds_modes(self) -> bool:
        return True  # it leaves none out

    def num_gradients(self, model: Model) -> int:
        return 0
