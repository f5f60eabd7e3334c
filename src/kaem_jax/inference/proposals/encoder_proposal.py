"""An encoder as proposal: one pass of a network, whatever the model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

from kaem_jax.inference.proposals.base import Proposal
from kaem_jax.inference.proposals.t_mixture import StudentMixture
from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.priors import Prior
from kaem_jax.priors.base import BoundPrior
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import at_least_float32
from kaem_jax.settings.registry import ENCODERS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Approximation:
    """z = mean + exp(log_scale) noise for data [B].

    Attributes:
      mean, log_scale: [B, *event_shape].
    """

    mean: Array
    log_scale: Array

    def at(self, noise: Array) -> Array:
        """Latents of standard normal noise, [..., B, *event_shape]; differentiable in the approximation."""
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob_at(self, noise: Array) -> Array:
        """Log q of the latents `at(noise)`, [..., B] nats."""
        return jnp.sum(norm.logpdf(noise) - self.log_scale, axis=tuple(range(1 - self.mean.ndim, 0)))

    def log_prob(self, z: Array) -> Array:
        """Log q(z | x), [..., B] nats, of latents [..., B, *event_shape]."""
        # Squaring the scale before the division would overflow long before the scale does.
        return self.log_prob_at((z - self.mean) * jnp.exp(-self.log_scale))


def approximate(encoder: Network | Encoder, model: Model, params: Params, x: Array) -> Approximation:
    """An encoder's approximation for data x [B, *data_shape].

    Raises:
      ValueError: `params` has no "encoder".
    """
    if "encoder" not in params:
        raise ValueError(
            "params has no 'encoder': add `sampler.init_params(key, model)`, or train with a posterior that "
            "learns one, such as 'variational'"
        )
    mean, log_scale = map(at_least_float32, model.bind_encoder(encoder).apply(params["encoder"], x))
    return Approximation(mean, log_scale)


@dataclasses.dataclass(frozen=True)
class EncoderProposal(Proposal):
    """q(z | x): a t distribution with the mean and scale of an encoder, whose parameters are `params["encoder"]`.

    Attributes:
      encoder: the network; None: in a run, the encoder of its posterior.
      degrees: degrees of freedom of the t distribution.
      widening: factor on the encoder's scale.
      prior_share: share of prior draws, as a defence; 0 if the prior has no exact draws.

    Example:
      >>> posterior = kaem.Variational(encoder=kaem.MLP(hidden=(32,)))
      >>> fitted = kaem.fit(key, model, x, posterior=posterior, num_steps=20, progress=False)
      >>> proposal = kaem.EncoderProposal(encoder=posterior.encoder)
      >>> kaem.log_prob(key, model, fitted.params, x, proposal=proposal, num_samples=100).value.shape
      (10,)
    """

    encoder: Network | Encoder | None = setting(None, kinds=ENCODERS)
    degrees: float = setting(6.0, above=0)
    widening: float = setting(1.1, above=0)
    prior_share: float = setting(0.05, low=0, high=0.999)

    def check(self, prior: Prior) -> None:
        """Raises a ValueError for a prior with a bounded support."""
        if prior.bounds is not None:
            raise ValueError(
                f"an encoder proposes latents anywhere, and this prior has the support {prior.bounds}: give the prior "
                "base_density='gaussian'"
            )

    def fit(self, key: Array, model: Model, params: Params, x: Array, prior: BoundPrior) -> StudentMixture:
        self.check(model.prior)
        if self.encoder is None:
            raise ValueError("an encoder proposal needs its encoder: give EncoderProposal(encoder=...)")
        q = approximate(self.encoder, model, params, x)
        size = math.prod(model.prior.event_shape)
        scale = self.widening * jnp.exp(q.log_scale.reshape(1, -1, size))
        eye = jnp.eye(size, dtype=scale.dtype)
        return StudentMixture(
            modes=q.at(jnp.zeros_like(q.mean)).reshape(1, -1, size), factors=eye / scale[..., None, :],
            spreads=eye * scale[..., None, :], log_shares=jnp.zeros((1, len(x)), scale.dtype), prior=prior,
            degrees=self.degrees, prior_share=self.prior_share if model.prior.has_exact_draws else 0.0,
        )  # fmt: skip

    @property
    def finds_modes(self) -> bool:
        return False  # one mode, the network's
