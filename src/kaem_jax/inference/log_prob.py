"""Log p(x) of data under a trained model, with errors. Pure, also inside jit."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.evidence import log_evidence
from kaem_jax.inference.proposals import Laplace, Proposal
from kaem_jax.likelihoods import Masked
from kaem_jax.model import Model, Params
from kaem_jax.settings.arguments import check_key, check_model

__all__ = ["LogProb", "check_tokens", "log_prob", "may_be_missing", "of_observed", "typicality_of"]


class LogProb(NamedTuple):
    """Log-probabilities of data.

    Attributes:
      value: [B] log p(x), nats; if values of a datum are missing, log p of its observed values.
      standard_error: [B], of `value`.
      ess: [B] effective number of proposals.
      is_bound: [B] whether `value` is only a lower bound, whose error means nothing: `ess` is below 20 or below 5 % of
        the proposals, or the proposal has one mode and may miss others.
      typicality: [B] `value` in standard deviations from the mean of typical data, None without such data. An image
        that is simpler than all typical ones lies far above 0 (Nalisnick et al., 2019).
    """

    value: Array
    standard_error: Array
    ess: Array
    is_bound: Array
    typicality: Array | None


def of_observed(model: Model) -> Model:
    """The model with a likelihood that ignores NaN values; a model of tokens is unchanged."""
    if getattr(model.likelihood, "may_miss", False) or model.takes_tokens:
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
    typical: Array | None = None,
    may_miss: bool | None = None,
) -> LogProb:
    """Log p(x_b) by importance sampling from a proposal, with errors.

    Args:
      key: a PRNG key.
      model: static.
      params: its parameters. Nothing is differentiated, neither in them nor in `x`; see `log_evidence`.
      x: [B, *data_shape], NaN where a value is missing.
      proposal: q(z | x); Laplace approximations by default.
      num_samples: proposals for each datum.
      chunk_size: latents in memory at once.
      typical: [M, *data_shape] without missing values, with which each datum is compared, for instance training data.
        Use samples of the model only if their noise is that of the data; images have less noise than a fixed sigma.
      may_miss: static, whether a value of x may be NaN. By default x is searched for NaN. Inside jit it cannot be, and
        values count as possibly missing: a Gaussian likelihood then works in a loop, which is slower. If False, a datum
        that has NaN after all gets NaN as error and ESS, and NaN or -inf as log p(x).

    Raises:
      ValueError: the prior has no normaliser, or `typical` has fewer than two data. Outside jit also: `typical` is
        given and values are missing in it or in x, or the model takes tokens and x has NaN or fractions.
    """
    check_key(key)
    check_model(model)
    check_tokens(model, x)
    proposal = Laplace() if proposal is None else proposal
    is_incomplete = may_be_missing(x, may_miss)
    seen = of_observed(model) if is_incomplete else model
    if typical is not None and not isinstance(x, jax.core.Tracer) and may_be_missing(x, None):
        raise ValueError("typical needs data x without missing values: log p of fewer values cannot be compared")
    if typical is not None and not isinstance(typical, jax.core.Tracer) and may_be_missing(typical, None):
        raise ValueError("typical has missing values: log p of fewer values cannot be compared; give complete data")
    if typical is not None and len(typical) < 2:
        raise ValueError(f"typical has {len(typical)} data; two at least have a standard deviation")
    options: dict[str, Any] = {"proposal": proposal, "num_samples": num_samples, "chunk_size": chunk_size}
    key_x, key_typical = jax.random.split(key)
    found = log_evidence(key_x, seen, params, x, **options)
    typicality = None
    if typical is not None:
        others = log_evidence(key_typical, model, params, typical, **options).value
        typicality = typicality_of(found.value, others)
    return LogProb(found.value, found.standard_error, found.ess, found.is_bound, typicality)


def typicality_of(log_prob: Array, typical: Array) -> Array:
    """Log p(x) [B] in standard deviations from the mean log p(x) of typical data [M]."""
    return (log_prob - jnp.mean(typical)) / jnp.std(typical, ddof=1)


def check_tokens(model: Model, x: Array) -> None:
    """Raises a ValueError if the model takes tokens and x has NaN or fractions; traced x is not checked."""
    if not model.takes_tokens or isinstance(x, jax.core.Tracer):
        return
    host = np.asarray(x, float)
    if np.isnan(host).any():
        raise ValueError("x has NaN, and parts of a text cannot be missing: give all tokens")
    if np.mod(host, 1).any():
        raise ValueError("x has fractions, and this model takes tokens: give whole numbers")


def may_be_missing(x: Array, said: bool | None) -> bool:
    """Whether a value may be missing: `said` if it is given, else whether x has NaN; True for traced x."""
    if said is not None:
        return said
    return isinstance(x, jax.core.Tracer) or bool(np.isnan(np.asarray(x)).any())  # jnp would be staged inside jit
