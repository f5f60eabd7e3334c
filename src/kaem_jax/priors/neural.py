"""The neural prior of Pang et al. (2020, arXiv 2006.08205): an MLP energy on N(0, I).

Its normaliser is unknown, draws come from Langevin chains of a fixed length, and training needs the contrastive term.
"""

import dataclasses
import functools
import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.activations import Activation, activation_function
from kaem_jax.mcmc import ULA, langevin_posterior
from kaem_jax.priors.base import BoundPrior, Params, Prior, drawing
from kaem_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralPrior(Prior):
    """p(z) proportional to exp(f(z)) N(z; 0, I) for z [Q], with a multilayer perceptron f.

    Attributes:
      num_latents: Q.
      hidden: widths of the hidden layers of f.
      activation: the non-linearity of f.
      num_steps: Langevin steps of each draw, starting from N(0, I).
      step_size: eta of the Langevin steps.

    Example:
      >>> prior = kaem.NeuralPrior(num_latents=2, hidden=(32,))
      >>> prior.bind(prior.init(key)).sample(key, (10,)).shape
      (10, 2)
    """

    num_latents: int = setting(low=1)
    hidden: tuple[int, ...] = setting((200, 200), low=1)
    activation: Activation = "silu"
    num_steps: int = setting(60, low=1)
    step_size: float = setting(0.08, above=0)

    is_normalized: ClassVar[bool] = False
    has_exact_draws: ClassVar[bool] = False

    @property
    def has_quantiles(self) -> bool:
        return False

    @property
    def event_shape(self) -> tuple[int]:
        return (self.num_latents,)

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Array) -> Params:
        widths = (self.num_latents, *self.hidden, 1)
        initialise = jax.nn.initializers.lecun_normal()
        return {
            f"dense_{i}": {"kernel": initialise(k, shape, float), "bias": jnp.zeros(shape[1], float)}
            for i, (k, shape) in enumerate(
                zip(jax.random.split(key, len(widths) - 1), itertools.pairwise(widths), strict=True)
            )
        }

    def _bind(self, params: Params) -> "BoundNeural":
        return BoundNeural(self, params)


class BoundNeural(BoundPrior):
    """A neural prior at its parameters."""

    prior: NeuralPrior

    @drawing
    def _sample(self, key: Array, shape: tuple[int, ...], points: str) -> Array:
        if points != "random":
            raise ValueError(f"points={points!r} needs a prior with quantiles; a neural prior has none: use 'random'")
        key_start, key_chain = jax.random.split(key)
        start = jax.random.normal(key_start, (*shape, self.prior.num_latents), self.params["dense_0"]["kernel"].dtype)
        chain = langevin_posterior(
            key_chain, self.log_prob, start, kernel=ULA(), num_steps=self.prior.num_steps,
            step_size=self.prior.step_size,
        )  # fmt: skip
        return chain.z

    @jax.jit
    def _log_prob(self, z: Array) -> Array:
        activation, num_hidden = activation_function(self.prior.activation), len(self.prior.hidden)
        x = z
        for i in range(num_hidden + 1):
            layer = self.params[f"dense_{i}"]
            x = x @ layer["kernel"] + layer["bias"]
            x = activation(x) if i < num_hidden else x
        return x[..., 0] - 0.5 * jnp.sum(z * z, axis=-1) - 0.5 * self.prior.num_latents * math.log(2 * math.pi)
