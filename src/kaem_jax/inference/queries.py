"""What to ask of a trained model: log p(x), latents and missing values, each with its error. Pure; works inside jit."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.inference.evidence import Evidence, log_evidence
from kaem_jax.inference.proposals import Laplace, Proposal
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.likelihoods import Masked
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.settings.arguments import check_key, check_model


def of_observed(model: Model) -> Model:
    """The model with a likelihood that ignores NaN values; a model of tokens is unchanged."""
    if model.likelihood.may_miss or model.likelihood.takes_tokens:
        return model
    return dataclasses.replace(model, likelihood=Masked(model.likelihood))


@full_precision
def log_prob(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    proposal: Proposal | None = None,
    num_samples: int = 1000,
    chunk_size: int = 20_000,
    may_miss: bool | None = None,
) -> Evidence:
    """Log p(x_b) of the observed values of a datum, by importance sampling from a proposal.

    Args:
      params: its parameters. Nothing is differentiated, neither in them nor in `x`.
      x: [B, *data_shape], NaN where a value is missing.
      proposal: q(z | x); Laplace approximations by default.
      num_samples: proposals for each datum.
      chunk_size: latents in memory at once.
      may_miss: static, whether a value of x may be NaN. By default x is searched for NaN; inside jit values count as
        possibly missing, which makes a Gaussian likelihood slower. If False, a datum with NaN gets NaN as error and
        ESS, and NaN or -inf as log p(x).

    Raises:
      ValueError: the prior has no normaliser. Outside jit also: the model takes tokens and x has NaN or fractions.

    Example:
      >>> found = kaem.log_prob(key, model, params, x, num_samples=100)
      >>> found.value.shape, found.is_bound.shape
      ((10,), (10,))
    """
    seen = _model_of_seen(key, model, x, may_miss)
    proposal = Laplace() if proposal is None else proposal
    return log_evidence(key, seen, params, x, proposal=proposal, num_samples=num_samples, chunk_size=chunk_size)


def _model_of_seen(key: Array, model: Model, x: Array, may_miss: bool | None) -> Model:
    """Checks the arguments, and lets the model ignore NaN if a value may be missing."""
    check_key(key)
    check_model(model)
    if model.likelihood.takes_tokens and not isinstance(x, jax.core.Tracer):
        host = np.asarray(x, float)
        if np.isnan(host).any():
            raise ValueError("x has NaN, and parts of a text cannot be missing: give all tokens")
        if np.mod(host, 1).any():
            raise ValueError("x has fractions, and this model takes tokens: give whole numbers")
    return of_observed(model) if may_be_missing(x, may_miss) else model


def may_be_missing(x: Array, said: bool | None) -> bool:
    """Whether a value may be missing: `said` if given, else whether x has NaN; True for traced x."""
    if said is not None:
        return said
    return isinstance(x, jax.core.Tracer) or bool(np.isnan(np.asarray(x)).any())  # jnp would be staged inside jit


class Encoded(NamedTuple):
    """Posteriors of latents.

    Attributes:
      mean, spread: [B, *event_shape], mean and standard deviation of p(z | x); spread is NaN for a single draw.
      clusters: [B, C] p(c | x) of a clustered prior, else None.
    """

    mean: Array
    spread: Array
    clusters: Array | None


@full_precision
def infer_latents(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_draws: int = 16,
    num_steps: int = 100,
    proposal: Proposal | None = None,
    may_miss: bool | None = None,
) -> Encoded:
    """Posterior means and spreads of the latents of x [B, *data_shape], and p(c | x).

    Arguments are as for `kaem_jax.impute`, and `may_miss` as for `kaem_jax.log_prob`.

    Raises:
      ValueError: the model takes tokens, and x has NaN or fractions.

    Example:
      >>> kaem.infer_latents(key, model, params, x, num_draws=4, num_steps=5).mean.shape
      (10, 2)
    """
    seen = _model_of_seen(key, model, x, may_miss)
    z = posterior_draws(key, seen, params, x, num_draws, num_steps, proposal)
    clusters = None
    if isinstance(model.prior, ClusteredPrior):
        clusters = jnp.mean(jnp.exp(model.prior.bind(params["prior"]).log_responsibilities(z)), axis=0)
    return Encoded(jnp.mean(z, axis=0), jnp.std(z, axis=0, ddof=1), clusters)


@functools.partial(jax.jit, static_argnames=("model", "num_draws", "num_steps", "proposal"))
def posterior_draws(
    key: Array, model: Model, params: Params, x: Array, num_draws: int, num_steps: int, proposal: Proposal | None
) -> Array:
    """Posterior draws of latents, [S, B, *event]."""
    proposal = Laplace() if proposal is None else proposal
    sampler = ProposalChains(proposal=proposal, num_steps=num_steps, num_chains=num_draws)
    draws, _ = sampler.step(key, 0, (), model, params, x)
    return draws.z


class Imputed(NamedTuple):
    """Data with their missing values filled in.

    Attributes:
      draws: [S, B, *data_shape], from p(missing | observed), with the likelihood's noise.
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
      num_draws: S, chains for each datum.
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
