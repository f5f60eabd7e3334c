"""Log p(x) of data under a trained model, with errors. Pure; works inside jit."""

import dataclasses

import jax
import numpy as np
from jax import Array

from kaem_jax.inference.evidence import Evidence, log_evidence
from kaem_jax.inference.proposals import Laplace, Proposal
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.likelihoods import Masked
from kaem_jax.model import Model, Params
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
    """Log p(x_b), of the observed values of a datum, by importance sampling from a proposal.

    Args:
      key: a PRNG key.
      model: static.
      params: its parameters. Nothing is differentiated, neither in them nor in `x`; see `log_evidence`.
      x: [B, *data_shape], NaN where a value is missing.
      proposal: q(z | x); Laplace approximations by default.
      num_samples: proposals for each datum.
      chunk_size: latents in memory at once.
      may_miss: static, whether a value of x may be NaN. By default x is searched for NaN. Inside jit it cannot be, and
        values count as possibly missing: a Gaussian likelihood then works in a loop, which is slower. If False, a datum
        that has NaN after all gets NaN as error and ESS, and NaN or -inf as log p(x).

    Raises:
      ValueError: the prior has no normaliser. Outside jit also: the model takes tokens and x has NaN or fractions.

    Example:
      >>> found = kaem.log_prob(key, model, params, x, num_samples=100)
      >>> found.value.shape, found.is_bound.shape
      ((10,), (10,))
    """
    check_key(key)
    check_model(model)
    check_tokens(model, x)
    seen = of_observed(model) if may_be_missing(x, may_miss) else model
    proposal = Laplace() if proposal is None else proposal
    return log_evidence(key, seen, params, x, proposal=proposal, num_samples=num_samples, chunk_size=chunk_size)


def check_tokens(model: Model, x: Array) -> None:
    """Raises a ValueError if the model takes tokens and x has NaN or fractions; traced x is not checked."""
    if not model.likelihood.takes_tokens or isinstance(x, jax.core.Tracer):
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
