"""How well data come back from their own posterior."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.config import PosteriorConfig
from kaem_jax.model import Model
from kaem_jax.objective import Draws, draw_posterior
from kaem_jax.parallel import constrain

__all__ = ["posterior_mean", "reconstruct"]


def posterior_mean(draws: Draws, values: Array) -> Array:
    """The mean over `draws` of a function of their latents, [B, ...]; `values` is that function at `draws.z`."""
    if draws.weights is None:
        return jnp.mean(values, axis=0)
    return jnp.tensordot(draws.weights, values, axes=1)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def reconstruct(
    key: Array,
    model: Model,
    params: Any,
    x: Array,
    settings: PosteriorConfig,
    **adapted: Array,
) -> tuple[Array, Array]:
    """Posterior means of E[x | z] for each datum, and their squared error against that same datum.

    Args:
      x: [B, *data_shape].
      settings: the posterior, as a rule `Config.evaluation_posterior`; chains are fresh ones.
      adapted: `step_size` and `betas`, where training has adapted them; see `draw_posterior`.

    Returns:
      reconstructions [B, *data_shape], and the mean over data and pixels of the squared error, a scalar.
    """
    x = constrain(x, "data")
    draws = draw_posterior(key, model, params, x, settings, **adapted)
    mean = posterior_mean(draws, model.decode(params, draws.z))
    return constrain(mean), jnp.mean(jnp.square(mean - x))
