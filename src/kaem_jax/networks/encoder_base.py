"""The interface of an encoder, and the one that flax.nnx networks have."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.networks.base import NnxNetwork

__all__ = ["Encoder", "NnxEncoder"]

Params = dict[str, Any]

_START_LOG_SCALE = -1.0  # of an untrained network, about: latents have a scale of 1


class Encoder(Protocol):
    """A network from data to the mean and log-scale of a diagonal Gaussian over latents. Static and hashable."""

    def init(self, key: Array) -> Params:
        """Initial parameters, a nested dictionary of arrays."""
        ...

    def apply(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Data [B, *data_shape] to mean and log-scale, [B, *event_shape] each."""
        ...


@dataclasses.dataclass(frozen=True)
class NnxEncoder(NnxNetwork):
    """An encoder whose network maps [N, *data_shape] to [N, 2 prod(event_shape)].

    Attributes:
      data_shape: shape of one datum.
      event_shape: shape of one latent.

    Raises:
      ValueError: `apply` is given data of another shape, or uint8 pixels.
    """

    data_shape: tuple[int, ...]
    event_shape: tuple[int, ...]

    def apply(self, params: Params, x: Array) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        if x.dtype == jnp.uint8 and not getattr(self.module, "takes_tokens", False):
            raise ValueError("x has dtype uint8; an encoder takes floats on the scale of the likelihood: divide by 255")
        if x.ndim < len(self.data_shape) or x.shape[x.ndim - len(self.data_shape) :] != self.data_shape:
            wanted = ", ".join(["B", *map(str, self.data_shape)])
            raise ValueError(f"x has shape {x.shape}; this encoder takes [{wanted}]")
        x = jnp.where(jnp.isnan(x), 0, x)  # missing values of a table, whose columns have mean 0
        out = self.call(jax.tree.map(jnp.asarray, params), x, len(self.data_shape))
        mean, log_scale = jnp.split(out, 2, axis=-1)
        shape = (*out.shape[:-1], *self.event_shape)
        return mean.reshape(shape), log_scale.reshape(shape) + _START_LOG_SCALE
