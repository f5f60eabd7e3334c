"""An encoder as proposal: one pass of a network, whatever the model."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals.approximation import approximate
from kaem_jax.inference.proposals.base import Proposal
from kaem_jax.inference.proposals.t_mixture import StudentMixture
from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.priors import Prior
from kaem_jax.priors.base import Table
from kaem_jax.settings import setting
from kaem_jax.settings.registry import ENCODERS

__all__ = ["EncoderProposal"]


@dataclasses.dataclass(frozen=True)
class EncoderProposal(Proposal):
    """Q(z | x): a t distribution with the mean and scale of an encoder, whose parameters are `params["encoder"]`.

    Attributes:
      encoder: the network; None: in a run, the encoder of its posterior.
      degrees: degrees of freedom of the t distribution.
      widening: factor on the encoder's scale.
      prior_share: share of prior draws, as a defence; 0 if the prior has no exact draws.
    """

    encoder: Network | Encoder | None = setting(None, kinds=ENCODERS)
    degrees: float = setting(6.0, above=0)
    widening: float = setting(1.1, above=0)
    prior_share: float = setting(0.05, low=0, high=0.999)

    def check(self, prior: Prior) -> None:
        """Refuses a prior for whose latents a normal distribution is unsuitable.

        Raises:
          ValueError: the prior has a bounded support.
        """
        if prior.bounds is not None:
            raise ValueError(
                f"an encoder proposes latents anywhere, and this prior has the support {prior.bounds}: give the prior "
                "base_density='gaussian', or make it a NonCentredPrior"
            )

    def fit(self, key: Array, model: Model, params: Params, x: Array, table: Table) -> StudentMixture:
        """See `Proposal.fit`.

        Raises:
          ValueError: `params` has no encoder, or see `check`.
        """
        self.check(model.prior)
        if self.encoder is None:
            raise ValueError("an encoder proposal needs its encoder: give EncoderProposal(encoder=...)")
        q = approximate(self.encoder, model, params, x)
        size = math.prod(model.prior.event_shape)
        scale = self.widening * jnp.exp(q.log_scale.reshape(1, -1, size))
        eye = jnp.eye(size, dtype=scale.dtype)
        return StudentMixture(
            modes=q.at(jnp.zeros_like(q.mean)).reshape(1, -1, size),
            factors=eye / scale[..., None, :],
            spreads=eye * scale[..., None, :],
            log_shares=jnp.zeros((1, len(x)), scale.dtype),
            params=params["prior"],
            table=table,
            prior=model.prior,
            degrees=self.degrees,
            prior_share=self.prior_share if model.prior.has_exact_draws else 0.0,
        )

    @property
    def finds_modes(self) -> bool:
        return False  # one mode, the network's
