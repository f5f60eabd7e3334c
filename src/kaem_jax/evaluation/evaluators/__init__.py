"""Evaluators: each file computes one kind of number, and says in a sentence what it means."""

from collections.abc import Callable, Mapping
from typing import Any

from kaem_jax.evaluation.evaluators import active_latents, clusters, darcy, log_likelihood, mixing
from kaem_jax.evaluation.evaluators.active_latents import ActiveLatents
from kaem_jax.evaluation.evaluators.base import Evaluator, Numbers, scalars_of
from kaem_jax.evaluation.evaluators.class_samples import ClassSamples
from kaem_jax.evaluation.evaluators.clusters import Clusters
from kaem_jax.evaluation.evaluators.log_likelihood import HeldOutLikelihood
from kaem_jax.evaluation.evaluators.mixing import Mixing
from kaem_jax.evaluation.evaluators.reconstruction import Reconstruction
from kaem_jax.evaluation.evaluators.sample_comparison import (
    SAMPLE_METRICS,
    SampleComparison,
    compare,
    prepare_features,
    verdict_of_copying,
    verdict_of_distance,
)
from kaem_jax.evaluation.evaluators.texts import Distinct, LatentUse, verdict_of_latent_use
from kaem_jax.evaluation.evaluators.value_comparison import (
    VALUE_METRICS,
    ValueComparison,
    verdict_of_spectrum,
    verdict_of_two_sample,
)

__all__ = [
    "METRICS",
    "SAMPLE_METRICS",
    "TEXT_METRICS",
    "VALUE_METRICS",
    "ActiveLatents",
    "ClassSamples",
    "Clusters",
    "Distinct",
    "Evaluator",
    "HeldOutLikelihood",
    "LatentUse",
    "Mixing",
    "Numbers",
    "Reconstruction",
    "SampleComparison",
    "ValueComparison",
    "compare",
    "prepare_features",
    "scalars_of",
    "verdict_of",
]

TEXT_METRICS = ("latent_use", "distinct")
METRICS = (
    "log_likelihood", "reconstruction", "active_latents", "clusters", "mixing", *SAMPLE_METRICS, "class_samples",
    *VALUE_METRICS, *TEXT_METRICS,
)  # fmt: skip

_VERDICTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log_likelihood": log_likelihood.verdict,
    "active_latents": active_latents.verdict,
    "clusters": clusters.verdict,
    "mixing": mixing.verdict,
    "fid": verdict_of_distance,
    "kid": verdict_of_distance,
    "copying": verdict_of_copying,
    "two_sample": verdict_of_two_sample,
    "spectrum": verdict_of_spectrum,
    "darcy": darcy.verdict,
    "latent_use": verdict_of_latent_use,
}


def verdict_of(metric: str, numbers: Mapping[str, Any]) -> str:
    """A sentence on the numbers of one metric of evaluation.json; it may be empty."""
    return _VERDICTS[metric](numbers) if metric in _VERDICTS and "reason" not in numbers else ""
