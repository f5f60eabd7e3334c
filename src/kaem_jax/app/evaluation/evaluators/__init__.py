"""Evaluators: each file computes one kind of number, and says in a sentence what it means."""

from kaem_jax.app.evaluation.evaluators.base import Evaluator, HeldOut, Numbers
from kaem_jax.settings.registry import Registry

__all__ = ["EVALUATORS", "METRICS", "SAMPLE_METRICS", "Evaluator", "HeldOut", "Numbers"]

_HERE = "kaem_jax.app.evaluation.evaluators"
SAMPLE_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "copying")
_ENTRIES = {
    "log_likelihood": f"{_HERE}.log_likelihood:LogLikelihood",
    "reconstruction": f"{_HERE}.reconstruction:Reconstruction",
    "active_latents": f"{_HERE}.active_latents:ActiveLatents",
    "clusters": f"{_HERE}.clusters:Clusters",
    "mixing": f"{_HERE}.mixing:Mixing",
    **dict.fromkeys(SAMPLE_METRICS, f"{_HERE}.sample_comparison:SampleComparison"),
    "two_sample": f"{_HERE}.value_comparison:ValueComparison",
    "latent_use": f"{_HERE}.texts:LatentUse",
}
METRICS = tuple(_ENTRIES)
EVALUATORS = Registry("metric", f"{_HERE}:Evaluator", **_ENTRIES)
