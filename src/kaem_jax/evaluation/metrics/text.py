"""How varied texts are, and what they say of their latents."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.model import Model, Params

__all__ = ["distinct", "log_likelihood_of_latents", "share_recovered"]


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """The share of different n-grams among all n-grams of texts in tokens (Li et al., 2016); nan without any.

    It falls with the number of texts: compare equal numbers.
    """
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def log_likelihood_of_latents(
    key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler
) -> tuple[Array, Array]:
    """Log p(x | z) of each of the data x [B, *data_shape] with a draw of its own posterior, and with another datum's.

    Where both are equal, the data say nothing of their latents, and a decoder that reads what is before has learned to
    do without them. [B] nats each.
    """
    z = posterior.draw_one(key, model, params, x)
    own = model.log_likelihood(params, z, x)
    return constrain(own), constrain(model.log_likelihood(params, jnp.roll(z, 1, axis=0), x))


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def share_recovered(
    key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler
) -> tuple[Array, Array]:
    """Texts decoded from a posterior draw of each of x [B, T], int32 [B, T], and the share of tokens that are right."""
    z = posterior.draw_one(key, model, params, x)
    again = model.decode(params, z)
    is_token = x != 0
    return constrain(again), jnp.sum((again == x) & is_token) / jnp.sum(is_token)
