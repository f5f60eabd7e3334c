"""Q(z | x), an encoder's normal approximation of the posterior, in the latents of the prior."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

from kaem_jax.model import Model, Params
from kaem_jax.networks import Encoder, Network
from kaem_jax.settings.arguments import at_least_float32

__all__ = ["Approximation", "approximate"]


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
        """The latents of standard normal noise, [..., B, *event_shape]; differentiable in the approximation."""
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob_at(self, noise: Array) -> Array:
        """Log q of the latents `at(noise)`, [..., B] nats."""
        return jnp.sum(norm.logpdf(noise) - self.log_scale, axis=tuple(range(1 - self.mean.ndim, 0)))

    def log_prob(self, z: Array) -> Array:
        """Log q(z | x), [..., B] nats, of latents [..., B, *event_shape]."""
        # Squaring the scale before the division would overflow long before the scale does.
        return self.log_prob_at((z - self.mean) * jnp.exp(-self.log_scale))


def approximate(encoder: Network | Encoder, model: Model, params: Params, x: Array) -> Approximation:
    """An encoder's approximation for data x [B, *data_shape]; its parameters are `params["encoder"]`.

    Raises:
      ValueError: `params` has no encoder.
    """
    if "encoder" not in params:
        raise ValueError(
            "params has no 'encoder': add `sampler.init_params(key, model)`, or train with a posterior that "
            "learns one, such as 'variational'"
        )
    mean, log_scale = map(at_least_float32, model.bind_encoder(encoder).apply(params["encoder"], x))
    return Approximation(mean, log_scale)
