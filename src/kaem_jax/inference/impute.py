"""Missing values of data, given the observed ones. Pure, also inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.infer_latents import posterior_draws
from kaem_jax.inference.log_prob import of_observed
from kaem_jax.inference.proposals import Proposal
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.model import Model, Params
from kaem_jax.settings.arguments import check_key, check_model


class Imputed(NamedTuple):
    """Data with their missing values filled in.

    Attributes:
      draws: [S, B, *data_shape], from the posterior predictive p(missing | observed), with the likelihood's noise.
      mean: [B, *data_shape], posterior mean of E[x | z]; for categories, their probabilities.
      spread: [B, *data_shape], standard deviation of the draws: 0 for observed values, NaN for a single draw.
    """

    draws: Array
    mean: Array
    spread: Array


@full_precision
def impute(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_draws: int = 16,
    num_steps: int = 100,
    proposal: Proposal | None = None,
) -> Imputed:
    """Draws the missing values (NaN) of x [B, *data_shape], given the others.

    Args:
      key: a PRNG key.
      model: static.
      params: its parameters.
      num_draws: S, chains for each datum; see `kaem_jax.inference.samplers.ProposalChains`.
      num_steps: moves of each chain.
      proposal: where chains start; Laplace approximations by default. An encoder would read missing values as 0.

    Raises:
      ValueError: the model takes tokens.

    Example:
      >>> kaem.impute(key, model, params, x.at[:, 0].set(jnp.nan), num_draws=4, num_steps=5).mean.shape
      (10, 4)
    """
    check_key(key)
    check_model(model)
    if model.likelihood.takes_tokens:
        raise ValueError("parts of a text cannot be missing: impute takes images, fields and tables")
    key_draw, key_noise = jax.random.split(key)
    z = posterior_draws(key_draw, of_observed(model), params, x, num_draws, num_steps, proposal)
    output = model.output(params, z)
    is_missing = jnp.isnan(x)
    flat = output.reshape(*output.shape[: z.ndim - len(model.prior.event_shape)], -1)
    noisy = model.likelihood.sample(key_noise, params["likelihood"], flat).reshape(output.shape)
    expected = model.likelihood.mean(params["likelihood"], flat).reshape(output.shape)
    mean = jnp.where(is_missing, jnp.mean(expected, axis=0), x)
    return Imputed(jnp.where(is_missing, noisy, x), mean, jnp.where(is_missing, jnp.std(noisy, axis=0, ddof=1), 0))
