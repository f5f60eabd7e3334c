"""What inference asks of a prior, a model and an encoder, in a few lines each: these compile in no time."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

# One program for each method and shape, in place of one for each operation.
compiled = functools.partial(jax.jit, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Prior:
    """Two latents around a parameter."""

    bounds: Any = None
    event_shape: ClassVar = (2,)
    is_normalized: ClassVar = True
    is_standard_normal: ClassVar = True
    has_exact_draws: ClassVar = True
    has_quantiles: ClassVar = True

    def tabulate(self, params):
        return {"bound": params}

    @functools.partial(jax.jit, static_argnames=("self", "shape", "points"))
    def sample(self, key, bound, shape, points="random"):
        return {"random": jax.random.normal, "sobol": jax.random.uniform}[points](key, (*shape, 2)) + bound["bound"]

    @compiled
    def log_prob(self, params, z, bound):
        return -jnp.sum(jnp.square(z - bound["bound"]), axis=-1)


@dataclasses.dataclass(frozen=True)
class Stub:
    """A model of two values."""

    prior: Prior = Prior()

    @compiled
    def log_likelihood(self, params, z, x, bound):
        return params["decoder"] * jnp.sum(jnp.sin(z) * x, axis=-1) + bound["bound"]

    def pairwise_log_likelihood(self, params, z, x, bound):
        return self.log_likelihood(params, z, x[:, None], bound)

    @compiled
    def log_joint(self, params, z, x, bound):
        return self.prior.log_prob(params["prior"], z, bound) + self.log_likelihood(params, z, x, bound)

    def simulate(self, key, params, z, bound):
        return z + jax.random.normal(key, z.shape)

    def bind_encoder(self, encoder):
        return encoder


class Doubling:
    """An encoder."""

    def init(self, key):
        return {}

    def apply(self, params, x):
        return 2 * x, 0 * x


MODEL, PARAMS, ENCODER = Stub(), {"prior": jnp.float32(0.5), "decoder": jnp.float32(3), "encoder": {}}, Doubling()
TABLE = MODEL.prior.tabulate(PARAMS["prior"])
