"""Objects that judge a model with their method `run`; training and `kaem evaluate` share them."""

from kaem_jax.evaluators.evaluator import METRICS, Evaluator, scalars_of
from kaem_jax.evaluators.of_data import ActiveLatents, Clusters, HeldOutLikelihood, Mixing, Reconstruction
from kaem_jax.evaluators.of_samples import ClassSamples, SampleComparison, prepare_features

__all__ = [
    "METRICS",
    "ActiveLatents",
    "ClassSamples",
    "Clusters",
    "Evaluator",
    "HeldOutLikelihood",
    "Mixing",
    "Reconstruction",
    "SampleComparison",
    "prepare_features",
    "scalars_of",
]
