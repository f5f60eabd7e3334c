"""Objects that judge a model with their method `run`; training and `kaem evaluate` share them."""

from kaem_jax.evaluation.evaluators.base import METRICS, TEXT_METRICS, VALUE_METRICS, Evaluator, scalars_of
from kaem_jax.evaluation.evaluators.of_data import ActiveLatents, Clusters, HeldOutLikelihood, Mixing, Reconstruction
from kaem_jax.evaluation.evaluators.of_samples import (
    ClassSamples,
    SampleComparison,
    prepare_classifier,
    prepare_features,
)
from kaem_jax.evaluation.evaluators.of_texts import Distinct, LatentUse
from kaem_jax.evaluation.evaluators.of_values import ValueComparison

__all__ = [
    "METRICS",
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
    "Reconstruction",
    "SampleComparison",
    "ValueComparison",
    "prepare_classifier",
    "prepare_features",
    "scalars_of",
]
