"""Held-out log-likelihood of a model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.config import EvaluationConfig
from kaem_jax.evidence import Evidence, log_evidence
from kaem_jax.model import Model

__all__ = ["effort", "held_out_log_likelihood"]


def effort(settings: EvaluationConfig, final: bool) -> tuple[str, int]:
    """What the estimate costs, as (name, number): proposals of importance sampling, temperatures of AIS."""
    name = "num_samples" if settings.method == "importance" else "num_temperatures"
    return name, getattr(settings, f"final_{name}" if final else name)


def held_out_log_likelihood(
    key: Array, model: Model, params: Any, x: Array, settings: EvaluationConfig, final: bool = False
) -> dict[str, Array]:
    """Mean log p(x), in expectation a lower bound, as named scalars.

    Args:
      key: a PRNG key; the same one at every evaluation makes successive values comparable.
      x: [N, *data_shape] held-out data.
      settings: the estimator, and how much it may cost.
      final: whether it is the long evaluation behind training.

    Returns:
      `log_likelihood` (nats per datum), `log_likelihood_standard_error` (Monte Carlo error of that mean), `ess` (median
      over data), `ess_min`.
    """
    _, number = effort(settings, final)
    if settings.method == "importance":
        estimate = log_evidence(
            key, model, params, x, points=settings.points, num_samples=number, chunk_size=settings.chunk_size
        )
    else:
        run = functools.partial(log_evidence, method="ais", num_chains=settings.num_chains, num_temperatures=number)
        estimate = _in_batches(run, key, model, params, x, settings.batch_size)
    return {
        "log_likelihood": jnp.mean(estimate.value),
        "log_likelihood_standard_error": estimate.mean_standard_error,
        "ess": jnp.median(estimate.ess),
        "ess_min": jnp.min(estimate.ess),
    }


def _in_batches(run: Any, key: Array, model: Model, params: Any, x: Array, batch_size: int) -> Evidence:
    """An estimate whose errors are independent between data, by batches of one size; the last is filled up."""
    size = min(batch_size, len(x))
    parts = []
    for i, first in enumerate(range(0, len(x), size)):
        rows = jnp.arange(first, first + size) % len(x)
        part = run(jax.random.fold_in(key, i), model, params, x[rows])
        parts.append(Evidence(*(leaf[: len(x) - first] if leaf.ndim else leaf for leaf in part)))
    value, error, _, ess = (
        jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]) for leaves in zip(*parts, strict=True)
    )
    return Evidence(value, error, jnp.sqrt(jnp.sum(error**2)) / len(x), ess)
