"""What the two mixtures of the package share: latents [Q], and proportions of what is mixed."""

import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.priors.base import Params, init_components
from kaem_jax.priors.calls import jit_method
from kaem_jax.priors.tabulated import TabulatedPrior

__all__ = ["ProportionedPrior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProportionedPrior(TabulatedPrior):
    """A prior over z [Q] whose bank holds P densities of each latent, which share its grid and are mixed.

    Attributes:
      proportions: `uniform` (1/P) or `learned` (softmax of the parameter `logits`).
    """

    shares_grid: ClassVar[bool] = True

    proportions: Literal["learned", "uniform"] = "uniform"

    @property
    def event_shape(self) -> tuple[int]:
        return (self.num_latents,)

    @property
    def proportions_shape(self) -> tuple[int, ...]:
        """Shape of the proportions; they add up to 1 along the last axis."""
        return (self.num_latents, self.num_each)

    @jit_method
    def init(self, key: Array) -> Params:
        params = init_components(key, self.bank, self.base)
        if self.proportions == "learned":
            params["logits"] = jnp.zeros(self.proportions_shape, float)
        return params

    def log_proportions(self, params: Params) -> Array:
        """Logarithms of the proportions, [*proportions_shape] nats."""
        if self.proportions == "learned":
            return jax.nn.log_softmax(params["logits"], axis=-1)
        dtype = params["bank"]["basis_weight"].dtype
        return jnp.full(self.proportions_shape, -math.log(self.num_each), dtype)
