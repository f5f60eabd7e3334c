"""Samples of a model against held-out data: images in a space of features, tables and fields by a two-sample test."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.app.data import Pixels, Text, are_pictures, to_pixels
from kaem_jax.app.devices.host_memory import return_freed_memory
from kaem_jax.app.evaluation.evaluators import SAMPLE_METRICS, Evaluator, HeldOut, Numbers, distances
from kaem_jax.app.evaluation.features import Extractor
from kaem_jax.app.evaluation.generate import sample_in_batches, sample_with_noise
from kaem_jax.jax_utils.keys import sample_key

_DISTANCES = {"fid": distances.frechet_distance, "kid": distances.kernel_distance}
_OF_TRAINING = ("fid", "kid", "copying")
_K_MANIFOLD, _K_COVERAGE = 3, 5
_MAX_TRAIN_IMAGES = 10_000  # among which copies are looked for
_FOLDS = 5
_FEWEST = 2 * _FOLDS
_ONE_SIDED = 2.13  # standard errors from five folds that a mean exceeds by chance once in twenty times (Student)


class SampleComparison(Evaluator):
    """Compares held-out images with as many generated ones, the samples of `kaem sample`; empty for other data."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        run, dataset, num_images = on.run, on.dataset, on.num_images
        if not are_pictures(run.form, dataset.data_shape):
            return {}
        return_freed_memory()  # of the posteriors, whose programs serve no comparison
        # Data may be sorted by class, so subsets are taken in random order.
        rng = np.random.default_rng(on.seed)
        held_out = to_pixels(dataset.held_out[rng.permutation(len(dataset.held_out))[:num_images]])
        train_rows = rng.permutation(len(dataset.train))

        def read_train(num: int) -> np.ndarray:
            order = np.argsort(rows := train_rows[:num])  # files are read from front to back
            return to_pixels(dataset.train[rows[order]])[np.argsort(order)]

        drawn = sample_in_batches(sample_key(on.seed), run.model, run.params, num_images)
        generated = np.concatenate([to_pixels(batch) for batch in drawn])
        metrics = [name for name in on.wanted if name in SAMPLE_METRICS]
        return compare(metrics, generated, held_out, read_train, on.extractor)

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        if "ratio" not in numbers:  # of other metrics than `copying`
            return ""
        if numbers["ratio"] < 1 - 2 * numbers["standard_error"]:
            return (
                f"samples lie nearest to held-out data {numbers['ratio']:.0%} as often as chance would have it: the "
                "model fits its training data better; of copies it would be 0%"
            )
        return "no sign of copies"


def compare(
    metrics: Sequence[str],
    generated: np.ndarray,
    held_out: np.ndarray,
    read_train: Callable[[int], np.ndarray],
    extractor: Extractor | None,
) -> dict[str, dict[str, Any]]:
    """Sample metrics of generated and held-out images, uint8 [N, H, W, C] in random order.

    `read_train` maps n to at most n training images, for `copying`, `fid` and `kid`. Without an extractor, metrics give
    a `reason`.
    """
    results: dict[str, dict[str, Any]] = {}
    features: dict[str, np.ndarray] = {}
    for name in metrics:
        try:
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


def _of_features(name: str, real: np.ndarray, fake: np.ndarray, known: Any = None) -> dict[str, Any]:
    if name in _DISTANCES:
        distance = _DISTANCES[name]
        error = distances.jackknife(distance, real, fake)
        found: dict[str, Any] = {"value": distance(real, fake), "standard_error": error}
        if len(known) >= len(fake):  # distances of fewer images have another bias
            found["value_of_training_images"] = distance(real, known[: len(fake)])
        return found | {"num_real": len(real), "num_generated": len(fake)}
    # Balls shrink as the number of points grows: only samples of equal size have comparable manifolds.
    size = min(len(real), len(fake))
    real, fake = real[:size], fake[:size]
    sizes = {"num_real": size, "num_generated": size}
    if name == "precision_recall":
        precision, recall = distances.precision_and_recall(real, fake, _K_MANIFOLD)
        return {"precision": precision, "recall": recall, "k": _K_MANIFOLD, **sizes}
    if name == "density_coverage":
        density, coverage = distances.density_and_coverage(real, fake, _K_COVERAGE)
        return {"density": density, "coverage": coverage, "k": _K_COVERAGE, **sizes}
    known = known[:_MAX_TRAIN_IMAGES]
    ratio, error = distances.copying(known, real, fake)
    return {"ratio": ratio, "standard_error": error, "num_train": len(known), **sizes}


class ValueComparison(Evaluator):
    """A two-sample test of samples, with the likelihood's noise, and held-out data; empty for pictures and texts."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        if isinstance(on.run.form, Pixels | Text):
            return {}
        values = np.asarray(on.dataset.held_out)
        real = values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]
        if len(real) < _FEWEST:
            return {"two_sample": {"reason": f"{len(real)} complete held-out data are too few"}}
        fake = sample_with_noise(sample_key(on.seed), on.run.model, on.run.params, len(real))
        area, error = classifier_two_sample(real.reshape(len(real), -1), fake.reshape(len(fake), -1), on.seed)
        sizes = {"num_real": len(real), "num_generated": len(fake)}
        return {"two_sample": {"value": area, "standard_error": error, **sizes}}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        if numbers["value"] - 0.5 <= _ONE_SIDED * numbers["standard_error"]:  # an area below 0.5 is worse than chance
            return "samples and held-out data cannot be told apart"
        return "samples can be told from held-out data"


def classifier_two_sample(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Area under the ROC curve of a classifier between rows of `a` and `b`, cross-validated: mean and standard error.

    0.5 is chance, 1 perfect separation (Lopez-Paz & Oquab, 2017). Missing values are allowed. The error allows
    for folds that share rows of training (Nadeau & Bengio, 2003).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    size = min(len(a), len(b))
    rows, classes = np.concatenate([a[:size], b[:size]]), np.repeat([0, 1], size)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    # With the default of 20 rows per leaf, folds of fewer than 40 rows could not be split.
    leaf = min(20, max(1, size // 10))
    model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=leaf, random_state=seed)
    areas = cross_val_score(model, rows, classes, cv=folds, scoring="roc_auc")
    return float(areas.mean()), float(areas.std(ddof=1) * np.sqrt(1 / _FOLDS + 1 / (_FOLDS - 1)))
