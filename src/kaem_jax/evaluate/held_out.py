"""Held-out log-likelihood of a model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.evidence import log_evidence
from kaem_jax.model import Model

__all__ = ["held_out_log_likelihood"]


# Model and sizes are static: one compilation serves every evaluation of a run.
@functools.partial(jax.jit, static_argnames=("model", "points", "num_samples", "chunk_size"))
def held_out_log_likelihood(
    key: Array, model: Model, params: Any, x: Array, *, points: str = "random", num_samples: int, chunk_size: int
) -> dict[str, Array]:
    """Mean log p(x) by importance sampling from the prior, in expectation a lower bound, as named scalars.

    Args:
      key: a PRNG key; the same one at every evaluation makes successive values comparable.
      x: [B, *data_shape] held-out data.
      points, num_samples, chunk_size: see `kaem_jax.log_evidence`.

    Returns:
      `log_likelihood` (nats per datum), `log_likelihood_standard_error` (Monte Carlo error of that mean), `ess` (median
      over data), `ess_min`.
    """
    estimate = log_evidence(key, model, params, x, points=points, num_samples=num_samples, chunk_size=chunk_size)
    return {
        "log_likelihood": jnp.mean(estimate.value),
        "log_likelihood_standard_error": estimate.mean_standard_error,
        "ess": jnp.median(estimate.ess),
        "ess_min": jnp.min(estimate.ess),
    }
