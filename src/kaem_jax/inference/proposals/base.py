"""The interface of proposals, and the prior as a proposal."""

import abc
import dataclasses
import functools
import math

import jax
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior
from kaem_jax.settings import Settings


class FittedProposal(abc.ABC):
    """Q(z | x_b) for each of B data, with draws and a normalised density. A pytree of arrays.

    Attributes:
      prior: the prior whose latents are proposed, at its parameters.
    """

    prior: BoundPrior

    @abc.abstractmethod
    def draw(self, key: Array, num: int) -> Array:
        """S = `num` independent draws per datum, [S, B, *event]."""

    @abc.abstractmethod
    def log_prob(self, z: Array) -> Array:
        """Normalised log-density, [..., B, *event] to [..., B] nats."""

    def undefended(self) -> "FittedProposal":
        """The proposal without its share of prior draws, which would only slow annealing."""
        return self

    def whiten(self, z: Array) -> Array:
        """Coordinates in which q(z | x_b) is roughly standard normal, [..., B, *event] to [..., B, Q]; affine in z."""
        return self.flat(z)

    def unwhiten(self, y: Array) -> Array:
        """The inverse of `whiten`."""
        return y.reshape(*y.shape[:-1], *self.prior.event_shape)

    def flat(self, z: Array) -> Array:
        """Latents [..., *event] with their coordinates in one axis, [..., Q]."""
        shape = self.prior.event_shape
        return z.reshape(*z.shape[: z.ndim - len(shape)], math.prod(shape))


class Proposal(Settings, abc.ABC):
    """A way to approximate posteriors. Static and hashable."""

    @property
    def finds_modes(self) -> bool:
        """Whether a fit looks for several modes. If not, nothing reveals the modes that it misses."""
        return True

    @abc.abstractmethod
    def fit(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> FittedProposal:
        """Q(z | x_b) for data x [B, *data_shape], where `prior` is `model.prior.bind(params["prior"])`.

        Raises:
          ValueError: the proposal does not suit the prior, such as an encoder with a bounded support.
        """

    def num_gradients(self, model: Model) -> int:
        """Gradient evaluations of a fit per datum; a column of a Jacobian counts as one."""
        return 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _FittedPrior(FittedProposal):
    prior: BoundPrior
    num_data: int = dataclasses.field(metadata=STATIC)

    def draw(self, key: Array, num: int) -> Array:
        return self.prior.sample(key, (num, self.num_data))

    def log_prob(self, z: Array) -> Array:
        return self.prior.log_prob(z)


@dataclasses.dataclass(frozen=True)
class PriorProposal(Proposal):
    """q(z | x) = p(z).

    Example:
      >>> kaem.log_prob(key, model, params, x, proposal=kaem.PriorProposal(), num_samples=100).ess.shape
      (10,)
    """

    def fit(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> _FittedPrior:
        return _FittedPrior(prior, len(x))


@functools.partial(jax.jit, static_argnames=("proposal", "model"))
def fitted_to(
    x: Array, proposal: Proposal, key: Array, model: Model, params: Params, prior: BoundPrior
) -> FittedProposal:
    """`proposal.fit` as one compiled program, which samplers and estimates share."""
    return proposal.fit(key, model, params, constrain(x, "data"), prior)
