"""References, where paths of tempered densities start: densities that can be sampled exactly."""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["NormalReference", "Reference"]


class Reference(Protocol):
    """A density with these methods, such as a numpyro distribution or `kaem_jax.ClusteredPrior(...).bind(params)`."""

    def sample(self, key: Array, shape: tuple[int, ...]) -> Any:
        """Independent draws: positions with leading axes `shape`."""

    def log_prob(self, z: Any) -> Array:
        """Normalised log-density of one position, a scalar in nats."""


@dataclasses.dataclass(frozen=True, eq=False)
class NormalReference:
    """Independent normal coordinates of any pytree.

        kaem.mcmc.NormalReference({"mean": jnp.zeros(3), "log_scale": jnp.zeros(())}, scale=3.0)

    Attributes:
      mean: a position.
      scale: standard deviation > 0, one for all leaves of `mean` or a pytree of them, each broadcast to its leaf.
    """

    mean: Any
    scale: Any = 1.0

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Any:
        leaves, tree = jax.tree.flatten(self.mean)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))

        def draw(key: Array, mean: Array, scale: Array) -> Array:
            return mean + scale * jax.random.normal(key, (*shape, *jnp.shape(mean)), jnp.result_type(mean))

        return jax.tree.map(draw, keys, self.mean, jax.tree.broadcast(self.scale, self.mean))

    def log_prob(self, z: Any) -> Array:
        def one(z: Array, mean: Array, scale: Array) -> Array:
            log_scale = jnp.log(jnp.broadcast_to(scale, jnp.shape(mean)))
            return jnp.sum(-0.5 * jnp.square((z - mean) / scale) - log_scale - 0.5 * math.log(2 * math.pi))

        return jax.tree.reduce(jnp.add, jax.tree.map(one, z, self.mean, jax.tree.broadcast(self.scale, self.mean)))
