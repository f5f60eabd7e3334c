"""The prior as proposal: the same for all data."""

import dataclasses

import jax
from jax import Array

from kaem_jax.devices.transforms import STATIC
from kaem_jax.inference.proposals.base import FittedProposal, Proposal
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.priors.base import Table

__all__ = ["PriorProposal"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _FittedPrior(FittedProposal):
    params: Params
    table: Table
    prior: Prior = dataclasses.field(metadata=STATIC)
    num_data: int = dataclasses.field(metadata=STATIC)

    def draw(self, key: Array, num: int) -> Array:
        return self.prior.sample(key, self.table, (num, self.num_data))

    def log_prob(self, z: Array) -> Array:
        return self.prior.log_prob(self.params, z, self.table)


@dataclasses.dataclass(frozen=True)
class PriorProposal(Proposal):
    """Q(z | x) = p(z)."""

    def fit(self, key: Array, model: Model, params: Params, x: Array, table: Table) -> _FittedPrior:
        return _FittedPrior(params["prior"], table, model.prior, len(x))
