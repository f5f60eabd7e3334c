"""What a trained model says of data: log p(x), values that are missing, latents. Pure functions, also inside jit."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.evidence import log_evidence
from kaem_jax.inference.proposals import LaplaceReference, Reference
from kaem_jax.inference.samplers import ReferencedSampler
from kaem_jax.likelihoods import Masked
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior

__all__ = ["Encoded", "Imputed", "Score", "encode", "impute", "of_observed", "score", "typicality_of"]


class Score(NamedTuple):
    """How probable data are.

    Attributes:
      log_prob: [B] log p(x), nats; of a datum with missing values, of those that are there.
      standard_error: [B] of the estimate.
      ess: [B] effective number of proposals.
      is_bound: [B] whether `ess` is below 20, or below 5 % of the proposals, or the reference has one mode and may miss
        others: log_prob is then a lower bound, and the error says nothing.
      typicality: [B] log_prob in standard deviations from the mean of typical data, None without such data. An image
        that is simpler than all of them lies far above 0 (Nalisnick et al., 2019).
    """

    log_prob: Array
    standard_error: Array
    ess: Array
    is_bound: Array
    typicality: Array | None


class Imputed(NamedTuple):
    """Data with their missing values filled in.

    Attributes:
      draws: [S, B, *data_shape] of the posterior predictive law p(missing | observed), the likelihood's noise included.
      mean: [B, *data_shape] of E[x | z] over the posterior; for categories, their probabilities.
      spread: [B, *data_shape] standard deviation of the draws, NaN of a single one; 0 where a value was observed.
    """

    draws: Array
    mean: Array
    spread: Array


class Encoded(NamedTuple):
    """Posteriors of latents.

    Attributes:
      mean, spread: [B, *event_shape], of p(z | x); spread is NaN of a single draw.
      clusters: [B, C] p(c | x) of a clustered prior, else None.
    """

    mean: Array
    spread: Array
    clusters: Array | None


def of_observed(model: Model) -> Model:
    """The model with a likelihood that passes over values that are NaN."""
    if getattr(model.likelihood, "may_miss", False) or model.takes_tokens:
        return model
    return dataclasses.replace(model, likelihood=Masked(model.likelihood))


@full_precision
def score(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    reference: Reference | None = None,
    num_samples: int = 1000,
    chunk_size: int = 20_000,
    typical: Array | None = None,
    may_miss: bool | None = None,
) -> Score:
    """Log p(x_b) by importance sampling from a reference, with errors.

    Args:
      key: a PRNG key.
      model: static.
      params: its parameters. Nothing is differentiated, neither in them nor in `x`; see `log_evidence`.
      x: [B, *data_shape], NaN where a value is missing.
      reference: of `kaem_jax.make_reference`; Laplace approximations by default.
      num_samples: proposals for each datum.
      chunk_size: latents in memory at once.
      typical: [M, *data_shape] without missing values, training data for instance, with which each datum is compared.
        The model's own samples serve only where their noise is that of the data: images have less than a fixed sigma.
      may_miss: static, whether a value of x may be NaN. By default x is searched for NaN. Inside jit this is not
        possible, and values count as possibly missing: a Gaussian likelihood then works in a loop, which is slower. If
        it is False and a value is NaN all the same, error and ESS of that datum are NaN, its log p(x) NaN or -inf.

    Raises:
      ValueError: the prior has no normaliser, or `typical` has fewer than two data, or, outside jit, `typical` is
        given and a value of x is missing, or a token of a text is.
    """
    _check_tokens(model, x)
    reference = LaplaceReference() if reference is None else reference
    is_incomplete = _may_miss(x, may_miss)
    seen = of_observed(model) if is_incomplete else model
    if typical is not None and not isinstance(x, jax.core.Tracer) and _may_miss(x, None):
        raise ValueError("typical needs data x without missing values: log p of fewer values cannot be compared")
    if typical is not None and not isinstance(typical, jax.core.Tracer) and _may_miss(typical, None):
        raise ValueError("typical has missing values: log p of fewer values cannot be compared; give complete data")
    if typical is not None and len(typical) < 2:
        raise ValueError(f"typical has {len(typical)} data; two at least have a standard deviation")
    options: dict[str, Any] = {"reference": reference, "num_samples": num_samples, "chunk_size": chunk_size}
    key_score, key_typical = jax.random.split(key)
    found = log_evidence(key_score, seen, params, x, **options)
    typicality = None
    if typical is not None:
        others = log_evidence(key_typical, model, params, typical, **options).value
        typicality = typicality_of(found.value, others)
    return Score(found.value, found.standard_error, found.ess, found.is_bound, typicality)


def typicality_of(log_prob: Array, typical: Array) -> Array:
    """Log p(x) [B] in standard deviations from the mean of that of typical data [M]."""
    return (log_prob - jnp.mean(typical)) / jnp.std(typical, ddof=1)


@full_precision
def impute(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_draws: int = 16,
    num_steps: int = 100,
    reference: Reference | None = None,
) -> Imputed:
    """Draws the values of x [B, *data_shape] that are NaN, given the others.

    Args:
      key: a PRNG key.
      model: static.
      params: its parameters.
      num_draws: S, chains for each datum; see `kaem_jax.inference.samplers.ReferencedSampler`.
      num_steps: moves of each chain.
      reference: where chains start; Laplace approximations by default. An encoder would read what is missing as 0.

    Raises:
      ValueError: the model is one of texts.
    """
    if model.takes_tokens:
        raise ValueError("parts of a text cannot be missing: impute takes images, fields and tables")
    key_draw, key_noise = jax.random.split(key)
    z = _posterior_draws(key_draw, of_observed(model), params, x, num_draws, num_steps, reference)
    output = model.output(params, z)
    is_missing = jnp.isnan(x)
    flat = output.reshape(*output.shape[: z.ndim - len(model.prior.event_shape)], -1)
    noisy = model.likelihood.sample(key_noise, params["likelihood"], flat).reshape(output.shape)
    expected = model.likelihood.mean(params["likelihood"], flat).reshape(output.shape)
    mean = jnp.where(is_missing, jnp.mean(expected, axis=0), x)
    return Imputed(jnp.where(is_missing, noisy, x), mean, jnp.where(is_missing, jnp.std(noisy, axis=0, ddof=1), 0))


@full_precision
def encode(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_draws: int = 16,
    num_steps: int = 100,
    reference: Reference | None = None,
    may_miss: bool | None = None,
) -> Encoded:
    """Posterior means and spreads of the latents of x [B, *data_shape], and p(c | x).

    Arguments are as for `impute`, and `may_miss` as for `score`.

    Raises:
      ValueError: a token of a text is missing.
    """
    _check_tokens(model, x)
    seen = of_observed(model) if _may_miss(x, may_miss) else model
    z = _posterior_draws(key, seen, params, x, num_draws, num_steps, reference)
    clusters = None
    if isinstance(model.prior, ClusteredPrior):
        clusters = jnp.mean(jnp.exp(model.prior.log_responsibilities(params["prior"], z)), axis=0)
    return Encoded(jnp.mean(z, axis=0), jnp.std(z, axis=0, ddof=1), clusters)


@functools.partial(jax.jit, static_argnames=("model", "num_draws", "num_steps", "reference"))
def _posterior_draws(
    key: Array, model: Model, params: Params, x: Array, num_draws: int, num_steps: int, reference: Reference | None
) -> Array:
    """Latents [S, B, *event]."""
    reference = LaplaceReference() if reference is None else reference
    sampler = ReferencedSampler(reference=reference, num_steps=num_steps, num_chains=num_draws)
    draws, _ = sampler.draw(key, 0, (), model, params, x)
    return draws.z


def _check_tokens(model: Model, x: Array) -> None:
    if not model.takes_tokens or isinstance(x, jax.core.Tracer):
        return
    host = np.asarray(x, float)
    if np.isnan(host).any():
        raise ValueError("x has NaN, and parts of a text cannot be missing: give all tokens")
    if np.mod(host, 1).any():
        raise ValueError("x has fractions, and this model takes tokens: give whole numbers")


def _may_miss(x: Array, said: bool | None) -> bool:
    """Whether a value may be missing: what the caller said, else what is seen; inside jit nobody knows."""
    if said is not None:
        return said
    return isinstance(x, jax.core.Tracer) or bool(np.isnan(np.asarray(x)).any())  # jnp would be staged inside jit
