"""Samples of a model against held-out images, in a space of features and pixel by pixel."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kaem_jax.data import Dataset, are_pictures, is_image, to_pixels
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.evaluators.distances import (
    copying,
    density_and_coverage,
    frechet_distance,
    jackknife,
    kernel_distance,
    precision_and_recall,
)
from kaem_jax.evaluation.evaluators.diversity import diversity
from kaem_jax.evaluation.features import Extractor, make_extractor
from kaem_jax.evaluation.generate import sample_in_batches
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = [
    "FEATURE_METRICS",
    "SAMPLE_METRICS",
    "SampleComparison",
    "compare",
    "prepare_features",
    "verdict_of_copying",
    "verdict_of_distance",
]

FEATURE_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "copying")
SAMPLE_METRICS = (*FEATURE_METRICS, "diversity")
_DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}
_OF_TRAINING = ("fid", "kid", "copying")
_K_MANIFOLD, _K_COVERAGE = 3, 5
_MAX_TRAIN_IMAGES = 10_000  # among which copies are looked for


@dataclasses.dataclass(frozen=True)
class SampleComparison:
    """Samples of a model against held-out images.

    Attributes:
      dataset: its held-out part is compared with the samples; during training that part has `data.num_held_out` data.
      metrics: names of metrics; those that are not in `SAMPLE_METRICS` are ignored.
      extractor: as `prepare_features` returns it for these metrics.
      num_images: generated images; as many real ones at most are compared with them.
      seed: decides the samples, which are those of `kaem sample` with this seed, and the random subsets of the data.
    """

    dataset: Dataset
    metrics: tuple[str, ...]
    extractor: Extractor | None
    num_images: int
    seed: int = 0

    def run(self, run: Run) -> Numbers:
        dataset = self.dataset
        metrics = tuple(name for name in self.metrics if name in SAMPLE_METRICS)
        if not metrics or not are_pictures(run.form, dataset.data_shape):
            return {}
        # Data may be sorted by class, so subsets are taken in random order.
        rng = np.random.default_rng(self.seed)
        held_out = to_pixels(dataset.held_out[rng.permutation(len(dataset.held_out))[: self.num_images]])
        train_rows = rng.permutation(len(dataset.train))

        def read_train(num: int) -> np.ndarray:
            order = np.argsort(rows := train_rows[:num])  # files are read from front to back
            return to_pixels(dataset.train[rows[order]])[np.argsort(order)]

        drawn = sample_in_batches(sample_key(self.seed), run.model, run.params, self.num_images)
        generated = np.concatenate([to_pixels(batch) for batch in drawn])
        return compare(metrics, generated, held_out, read_train, self.extractor)


def compare(
    metrics: tuple[str, ...],
    generated: np.ndarray,
    held_out: np.ndarray,
    read_train: Callable[[int], np.ndarray],
    extractor: Extractor | None,
) -> Numbers:
    """Sample metrics of generated images.

    Args:
      metrics: names from `SAMPLE_METRICS`.
      generated, held_out: uint8 [N, H, W, C], rounded in the same way, in random order.
      read_train: maps n to at most n training images, in the same form and in random order. `copying` needs them; `fid`
        and `kid` report the distance of as many training images as there are generated ones, as a yardstick.
      extractor: computes features. Without one (None), metrics that need features give a `reason`.
    """
    results: Numbers = {}
    features: dict[str, np.ndarray] = {}
    for name in metrics:
        try:
            if name == "diversity":
                results[name] = diversity(generated, held_out)
                continue
            if extractor is None:
                raise ValueError(
                    "the data have no labels to train a classifier with: give other features (--features, or "
                    "evaluation.features)"
                )
            if not features:
                features = {"real": extractor(held_out), "fake": extractor(generated)}
            if name in _OF_TRAINING and "known" not in features:
                wanted = max(_MAX_TRAIN_IMAGES, len(generated)) if "copying" in metrics else len(generated)
                features["known"] = extractor(read_train(wanted))
            results[name] = _of_features(name, **features)
            results[name] |= {"features": extractor.name, "num_features": features["real"].shape[1]}
        except ValueError as error:
            results[name] = {"reason": str(error)}
    return results


def _of_features(name: str, real: np.ndarray, fake: np.ndarray, known: np.ndarray | None = None) -> dict[str, Any]:
    if name in _DISTANCES:
        assert known is not None
        distance = _DISTANCES[name]
        found: dict[str, Any] = {"value": distance(real, fake), "standard_error": jackknife(distance, real, fake)}
        if len(known) >= len(fake):  # distances of fewer images have another bias
            found["value_of_training_images"] = distance(real, known[: len(fake)])
        return found | {"num_real": len(real), "num_generated": len(fake)}
    # Balls shrink as the number of points grows: only samples of equal size have comparable manifolds.
    size = min(len(real), len(fake))
    real, fake = real[:size], fake[:size]
    sizes = {"num_real": size, "num_generated": size}
    if name == "precision_recall":
        precision, recall = precision_and_recall(real, fake, _K_MANIFOLD)
        return {"precision": precision, "recall": recall, "k": _K_MANIFOLD, **sizes}
    if name == "density_coverage":
        density, coverage = density_and_coverage(real, fake, _K_COVERAGE)
        return {"density": density, "coverage": coverage, "k": _K_COVERAGE, **sizes}
    assert known is not None
    known = known[:_MAX_TRAIN_IMAGES]
    ratio, error = copying(known, real, fake)
    return {"ratio": ratio, "standard_error": error, "num_train": len(known), **sizes}


def verdict_of_distance(numbers: Mapping[str, Any]) -> str:
    """The distance of training images, as a yardstick for FID or KID."""
    yardstick = numbers.get("value_of_training_images")
    return "" if yardstick is None else f"the same number of training images is at {yardstick:.3g}"


def verdict_of_copying(numbers: Mapping[str, Any]) -> str:
    """Whether the model may repeat its training data."""
    if numbers["ratio"] < 1 - 2 * numbers["standard_error"]:
        return "samples lie nearer to training data than to held-out data: some may be copies"
    return "no sign of copies"


def prepare_features(
    config: Experiment, dataset: Dataset, metrics: tuple[str, ...], features: str, classifier_file: pathlib.Path
) -> Extractor | None:
    """The feature extractor that `metrics` need, trained if necessary; None if they need none.

    `features` and `classifier_file` are the arguments `spec` and `own` of `make_extractor`.

    Raises:
      ConfigError: the features are not available, or cannot be computed for these images.
    """
    if not any(name in FEATURE_METRICS for name in metrics):
        return None
    extractor = make_extractor(features, classifier_file, config.data.name, dataset)
    if is_image(dataset.data_shape):
        extractor(to_pixels(dataset.held_out[:1]))  # what fails is refused before training, not left out after it
    return extractor
