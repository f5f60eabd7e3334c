"""Samples of each class, where clusters belong to classes."""

import dataclasses
import pathlib

import jax
import numpy as np
from jax import Array

from kaem_jax.data import to_pixels
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.features.classifier import classify, load_classifier
from kaem_jax.evaluation.generate import sample_in_batches
from kaem_jax.runs.run import Run

__all__ = ["ClassSamples"]

_NUM_OF_CLASS = 200


@dataclasses.dataclass(frozen=True)
class ClassSamples:
    """The share of samples drawn from a class that a classifier assigns to this class.

    Attributes:
      key: a PRNG key; with the class, it decides the samples.
      classifier_file: file of a classifier that was trained on the same data, not on samples.
    """

    key: Array
    classifier_file: pathlib.Path

    def run(self, run: Run) -> Numbers:
        num_classes = getattr(run.model.prior, "num_classes", 0)
        if not num_classes:
            return {"class_samples": {"reason": "clusters were not tied to classes (data.labels)"}}
        if not self.classifier_file.exists():
            return {"class_samples": {"reason": f"there is no classifier in {self.classifier_file}, and no labels"}}
        drawn = [
            to_pixels(batch)
            for label in range(num_classes)
            for batch in sample_in_batches(
                jax.random.fold_in(self.key, label), run.model, run.params, _NUM_OF_CLASS, label=label
            )
        ]
        found = classify(load_classifier(self.classifier_file), np.concatenate(drawn)).reshape(num_classes, -1)
        agreed = np.mean(found == np.arange(num_classes)[:, None], axis=1)
        result = {
            "accuracy": float(agreed.mean()),
            "accuracy_of_worst_class": float(agreed.min()),
            "classes": num_classes,
            "num_generated_of_each": _NUM_OF_CLASS,
        }
        return {"class_samples": result}
