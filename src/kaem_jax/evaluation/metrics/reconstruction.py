"""How well the model reconstructs data from their own posterior."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.model import Model, Params

__all__ = ["reconstruct"]


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def reconstruct(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> tuple[Array, Array]:
    """Posterior means of E[x | z] for each datum, and their squared error against that same datum.

    Args:
      x: [B, *data_shape], NaN where a value is missing.
      posterior: the sampler that draws.

    Returns:
      reconstructions [B, *data_shape], and the mean over all values that are there of the squared error, a scalar.
    """
    x = constrain(x, "data")
    draws = posterior.draw(key, model, params, x)
    mean = draws.mean(model.decode(params, draws.z))
    return constrain(mean), jnp.nanmean(jnp.square(mean - x))
