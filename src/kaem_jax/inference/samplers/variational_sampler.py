"""The variational posterior of an encoder, trained by a lower bound on log p(x) (docs/method.md, section 13)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.inference.proposals.encoder_proposal import approximate
from kaem_jax.inference.samplers.base import ChainDraws, Sampler, SamplerState
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.networks import MLP, Encoder, Network
from kaem_jax.priors import Prior
from kaem_jax.settings import setting
from kaem_jax.settings.registry import ENCODERS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EncoderDraws(ChainDraws):
    """Draws of an encoder's normal approximation, through which a bound can be differentiated.

    Attributes:
      noise: [K, B, *event], standard normal.
      kl_weight: scalar in 0..1, the factor on log p(z) - log q(z | x).
      encoder: static.
    """

    noise: Array
    kl_weight: Array
    encoder: Network | Encoder = dataclasses.field(metadata=STATIC)

    def bound(
        self, model: Model, params: Params, x: Array, prior: Any, labels: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Log mean_k p(x_b, z_k) / q(z_k | x_b), [B] nats, and metrics; `labels` y [B] make it p(x_b, y_b, z_k) / q.

        The evidence lower bound for K = 1 (Kingma & Welling, 2014), else the importance-weighted one (Burda et al.,
        2016). Differentiable in all of `params`, through the draws too.
        """
        q = approximate(self.encoder, model, params, x)
        z, log_q = q.at(self.noise), q.log_prob_at(self.noise)
        log_prior = prior.log_prob(z) if labels is None else prior.log_prob_with_class(z, labels)
        gain = log_prior - log_q
        log_likelihood = model.log_likelihood(params, z, x, prior)
        bound = jax.nn.logsumexp(log_likelihood + self.kl_weight * gain, axis=0) - math.log(len(z))
        return bound, {"log_likelihood": jnp.mean(log_likelihood), "kl": -jnp.mean(gain)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variational(Sampler):
    """Draws from q(z | x), an approximation of p(z | x) that takes one pass of an encoder.

    Prior, decoder and encoder maximise the same lower bound on log p(x).

    Attributes:
      encoder: the network.
      num_draws: K, draws for each datum.
      kl_warmup_steps: first updates of the stage, over which the weight of log p(z) - log q(z | x) rises linearly to 1.

    Example:
      >>> posterior = kaem.Variational(encoder=kaem.MLP(hidden=(32,)))
      >>> fitted = kaem.fit(key, model, x, posterior=posterior, num_steps=20, progress=False)
    """

    encoder: Network | Encoder = setting(MLP(), kinds=ENCODERS)
    num_draws: int = setting(1, low=1)
    kl_warmup_steps: int = setting(0, low=0)

    def check(self, prior: Prior) -> None:
        EncoderProposal(self.encoder).check(prior)
        if not prior.is_normalized:
            raise ValueError("a variational posterior needs a normalised prior, and this one is not: take chains")

    def check_length(self, num_steps: int) -> None:
        if self.kl_warmup_steps >= num_steps:
            raise ValueError(f"kl_warmup_steps={self.kl_warmup_steps} must be below the {num_steps} updates")

    def init_params(self, key: Array, model: Model) -> Params:
        return {"encoder": model.bind_encoder(self.encoder).init(key)}

    def step(
        self, key: Array, step: Array | int, state: SamplerState, model: Model, params: Params, x: Array,
        indices: Array | None = None,
    ) -> tuple[EncoderDraws, SamplerState]:  # fmt: skip
        q = approximate(self.encoder, model, *jax.lax.stop_gradient((params, jnp.asarray(x))))
        noise = jax.random.normal(key, (self.num_draws, *q.mean.shape), q.mean.dtype)
        noise = constrain(noise, None, "data")
        kl_weight = jnp.minimum((jnp.asarray(step).astype(noise.dtype) + 1) / (self.kl_warmup_steps + 1), 1)
        return EncoderDraws(q.at(noise), {}, noise, kl_weight, self.encoder), state
