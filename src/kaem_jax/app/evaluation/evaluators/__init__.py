"""Evaluators: each file computes one kind of number, and says in a sentence what it means."""

from collections.abc import Callable, Mapping
from typing import Any

from kaem_jax.app.evaluation.evaluators import active_latents, clusters, log_likelihood, mixing, texts
from kaem_jax.app.evaluation.evaluators.sample_comparison import SAMPLE_METRICS, verdict_of_copying
from kaem_jax.app.evaluation.evaluators.value_comparison import VALUE_METRICS, verdict_of_two_sample

__all__ = ["METRICS", "SAMPLE_METRICS", "VALUE_METRICS", "verdict_of"]

METRICS = (
    "log_likelihood", "reconstruction", "active_latents", "clusters", "mixing", *SAMPLE_METRICS,
    *VALUE_METRICS, "latent_use",
)  # fmt: skip

_VERDICTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log_likelihood": log_likelihood.verdict,
    "active_latents": active_latents.verdict,
    "clusters": clusters.verdict,
    "mixing": mixing.verdict,
    "copying": verdict_of_copying,
    "two_sample": verdict_of_two_sample,
    "latent_use": texts.verdict,
}


def verdict_of(metric: str, numbers: Mapping[str, Any]) -> str:
    """A sentence on the numbers of one metric of evaluation.json; it may be empty."""
    return _VERDICTS[metric](numbers) if metric in _VERDICTS and "reason" not in numbers else ""
