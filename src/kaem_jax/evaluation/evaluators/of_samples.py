"""Metrics of samples against held-out images."""

import dataclasses
import pathlib

import jax
import numpy as np
from jax import Array

from kaem_jax.data import Dataset, are_pictures, is_image, to_pixels
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.features import Extractor, LabelledImages, make_extractor
from kaem_jax.evaluation.features.classifier import classify, load_classifier
from kaem_jax.evaluation.generate import sample_in_batches
from kaem_jax.evaluation.metrics.comparison import FEATURE_METRICS, SAMPLE_METRICS, compare
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = ["ClassSamples", "SampleComparison", "prepare_classifier", "prepare_features"]

_NUM_OF_CLASS = 200


def prepare_features(
    config: Experiment, dataset: Dataset, metrics: tuple[str, ...], features: str, classifier_file: pathlib.Path
) -> Extractor | None:
    """The feature extractor that `metrics` need, trained if necessary; None if they need none.

    Args:
      config: the run's configuration.
      dataset: the data set that `config.data` describes.
      metrics: names from `METRICS`.
      features: see `kaem_jax.evaluation.features.make_extractor`.
      classifier_file: where the classifier of `features="classifier"` is kept.

    Raises:
      ConfigError: the features are not available, or cannot be computed of these images.
    """
    if not any(name in FEATURE_METRICS for name in metrics):
        return None

    extractor = make_extractor(features, classifier_file, lambda: _labelled(config, dataset))
    if extractor is not None and is_image(dataset.data_shape):
        extractor(to_pixels(dataset.held_out[:1]))  # what fails is refused before training, not left out after it
    return extractor


def prepare_classifier(config: Experiment, dataset: Dataset, classifier_file: pathlib.Path) -> None:
    """Trains the classifier that `ClassSamples` asks, if there is none and the images have labels."""
    if not classifier_file.exists() and dataset.is_labelled and is_image(dataset.data_shape):
        make_extractor("classifier", classifier_file, lambda: _labelled(config, dataset))


def _labelled(config: Experiment, dataset: Dataset) -> LabelledImages | None:
    if not dataset.is_labelled or not is_image(dataset.data_shape):
        return None
    assert dataset.train_labels is not None
    assert dataset.held_out_labels is not None
    rows, test_rows = np.arange(len(dataset.train)), np.arange(len(dataset.held_out))
    return LabelledImages(
        config.data.name,
        to_pixels(dataset.train[rows]),
        dataset.train_labels(rows),
        to_pixels(dataset.held_out),
        dataset.held_out_labels(test_rows),
    )


@dataclasses.dataclass(frozen=True)
class SampleComparison:
    """Samples of a model against held-out images.

    Attributes:
      dataset: samples are compared with all of its held-out part. In training that is what `data.num_held_out` leaves.
      metrics: names from `METRICS`; those that are not sample metrics are ignored.
      extractor: as `prepare_features` returns it for these metrics.
      num_images: generated images; as many real ones at most are compared with them.
      points: `random` or `sobol` draws of the generated images.
      seed: decides the samples, which are those of `kaem sample` with this seed, and the random subsets of the data.
    """

    dataset: Dataset
    metrics: tuple[str, ...]
    extractor: Extractor | None
    num_images: int
    points: str = "random"
    seed: int = 0

    def run(self, run: Run) -> Numbers:
        """Runs the comparison.

        Raises:
          ConfigError: `points` is `sobol` and the prior has no quantiles.
        """
        dataset = self.dataset
        metrics = tuple(name for name in self.metrics if name in SAMPLE_METRICS)
        if self.points == "sobol" and not run.model.prior.has_quantiles:
            raise ConfigError(
                f"points 'sobol' need a prior with quantiles; that of a {type(run.model.prior).__name__} has none"
            )
        if not metrics or not are_pictures(run.form, dataset.data_shape):
            return {}
        # Data may be sorted by class, so subsets are taken in random order.
        rng = np.random.default_rng(self.seed)
        held_out = to_pixels(dataset.held_out[rng.permutation(len(dataset.held_out))[: self.num_images]])
        train_rows = rng.permutation(len(dataset.train))
        drawn = sample_in_batches(sample_key(self.seed), run.model, run.params, self.num_images, self.points)
        results = compare(
            metrics,
            np.concatenate([to_pixels(batch) for batch in drawn]),
            held_out,
            lambda num: _read(dataset, train_rows[:num]),
            self.extractor,
            independent=self.points == "random",
        )
        return {
            name: numbers if "reason" in numbers else numbers | {"points": self.points}
            for name, numbers in results.items()
        }


def _read(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Training images [N, H, W, C] in the order of `rows`, read in the order in which they lie in files."""
    order = np.argsort(rows)
    images = to_pixels(dataset.train[rows[order]])
    return images[np.argsort(order)]


@dataclasses.dataclass(frozen=True)
class ClassSamples:
    """Samples of each class, where clusters belong to classes, and how often a classifier says that class.

    Attributes:
      key: a PRNG key, which decides the samples, with the class.
      classifier_file: a classifier of the same data, which was not trained on samples.
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
