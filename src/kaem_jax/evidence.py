"""Estimates of log p(x) for evaluation, each with a standard error (method section 9)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["EVIDENCE_METHODS", "Evidence", "log_evidence"]

EVIDENCE_METHODS = ("importance",)


class Evidence(NamedTuple):
    """Estimates of log p(x_b), constants of the likelihood included.

    Attributes:
      value: [B] nats.
      standard_error: [B] nats, Monte Carlo error of `value`.
      mean_standard_error: scalar, Monte Carlo error of the mean of `value` over data. Proposals are shared, so errors
        of different data are correlated and this is not the root mean square of `standard_error`.
      ess: [B] effective sample size of the proposals.
    """

    value: Array
    standard_error: Array
    mean_standard_error: Array
    ess: Array


@functools.partial(jax.jit, static_argnames=("model", "method", "points", "num_samples", "chunk_size"))
def log_evidence(
    key: Array,
    model: Any,
    params: Any,
    x: Array,
    method: str = "importance",
    *,
    points: str = "random",
    num_samples: int = 10_000,
    chunk_size: int = 1_000,
) -> Evidence:
    """Estimates log p(x_b) for every datum.

    `importance`: log mean_s p(x_b | z_s) over S prior draws, whose expectation is a lower bound of log p(x_b). The
    draws come in chunks of which only B numbers each are kept; the spread of the chunk means gives the errors.

    Args:
      key: a PRNG key.
      model: a `kaem_jax.Model`.
      params: its parameters.
      x: [B, *data_shape].
      method: one of `EVIDENCE_METHODS`.
      points: what the draws are made of, `random` or `sobol`: a scrambled set for each chunk, so that the chunks are
        independent and their spread is an error still.
      num_samples: S, a multiple of `chunk_size` with at least two chunks.
      chunk_size: proposals held in memory at once.

    Raises:
      ValueError: `method` is unknown, or the sizes do not give at least two whole chunks.
    """
    if method not in EVIDENCE_METHODS:
        raise ValueError(f"method={method!r} is not known; allowed: {', '.join(EVIDENCE_METHODS)}")
    num_chunks, rest = divmod(num_samples, chunk_size)
    if rest or num_chunks < 2:
        raise ValueError(
            f"num_samples={num_samples} must be a multiple of chunk_size={chunk_size}, and at least twice as large"
        )
    table = model.prior.tabulate(params["prior"])

    def chunk(index):
        z = model.prior.sample(jax.random.fold_in(key, index), table, (chunk_size,), points)
        log_likelihood = model.pairwise_log_likelihood(params, z, x, table=table)
        return jax.nn.logsumexp(log_likelihood, axis=-1), jax.nn.logsumexp(2 * log_likelihood, axis=-1)

    log_sums, log_squares = jax.lax.map(chunk, jnp.arange(num_chunks))  # [K, B] each
    log_sum = jax.nn.logsumexp(log_sums, axis=0)
    ess = jnp.exp(2 * log_sum - jax.nn.logsumexp(log_squares, axis=0))
    # Delta method: relative deviations of the chunk means, whose mean over chunks is 0.
    deviation = num_chunks * jnp.exp(log_sums - log_sum) - 1
    scale = num_chunks * (num_chunks - 1)
    return Evidence(
        value=log_sum - jnp.log(num_samples),
        standard_error=jnp.sqrt(jnp.sum(deviation**2, axis=0) / scale),
        mean_standard_error=jnp.sqrt(jnp.sum(jnp.mean(deviation, axis=1) ** 2) / scale),
        ess=ess,
    )
