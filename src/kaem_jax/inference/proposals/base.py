"""What a proposal is."""

import functools
from typing import Protocol

import jax
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import Table

__all__ = ["FittedProposal", "Proposal", "fitted_to"]


class FittedProposal(Protocol):
    """Q(z | x_b) for each of B data: one can draw from it and knows its density. A pytree of arrays."""

    def draw(self, key: Array, num: int) -> Array:
        """S = `num` independent draws for each datum, [S, B, *event]."""

    def log_prob(self, z: Array) -> Array:
        """Normalised log-density, [..., B, *event] to [..., B] nats."""

    def undefended(self) -> "FittedProposal":
        """The same without a share of prior draws: annealing does not need it, and it costs an evaluation each step."""

    def whiten(self, z: Array) -> Array:
        """Coordinates in which q(z | x_b) is roughly standard normal, [..., B, *event] to [..., B, Q]; affine in z."""

    def unwhiten(self, y: Array) -> Array:
        """The inverse of `whiten`."""


class Proposal(Protocol):
    """A way to approximate posteriors. Static and hashable."""

    @property
    def finds_modes(self) -> bool:
        """Whether a fit looks for several modes of a posterior. If not, nothing tells of those that it misses."""

    def fit(self, key: Array, model: Model, params: Params, x: Array, table: Table) -> FittedProposal:
        """Q(z | x_b) for data x [B, *data_shape].

        Args:
          key: a PRNG key.
          model: the model.
          params: its parameters.
          table: `model.prior.tabulate(params["prior"])`.

        Raises:
          ValueError: the proposal does not suit the prior, such as an encoder and a bounded support.
        """

    def num_gradients(self, model: Model) -> int:
        """What a fit costs for each datum, in gradient evaluations; a column of a Jacobian counts as one."""


@functools.partial(jax.jit, static_argnames=("proposal", "model"))
def fitted_to(x: Array, proposal: Proposal, key: Array, model: Model, params: Params, table: Table) -> FittedProposal:
    """`proposal.fit`, one compiled program for all that starts from it."""
    return proposal.fit(key, model, params, constrain(x, "data"), table)
