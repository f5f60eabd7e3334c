"""Samples of tables and fields against held-out data: a two-sample test and Darcy's equation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.app.data import Dataset, Pixels, Text
from kaem_jax.app.evaluation.evaluators.darcy import compare_pairs
from kaem_jax.app.evaluation.generate import sample_with_noise
from kaem_jax.app.runs.load import Run
from kaem_jax.keys import sample_key

VALUE_METRICS = ("two_sample", "darcy")
_FOLDS = 5
_FEWEST = 2 * _FOLDS
_ONE_SIDED = 2.13  # standard errors from five folds that a mean exceeds by chance once in twenty times (Student)


def evaluate(run: Run, dataset: Dataset, metrics: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Those of `metrics` that suit: samples, with the likelihood's noise, against held-out data, both standardised."""
    wanted = [name for name in metrics if name in VALUE_METRICS]
    if isinstance(run.form, Pixels | Text) or not wanted:
        return {}
    real = _complete(np.asarray(dataset.held_out))
    if len(real) < _FEWEST:
        return {name: {"reason": f"{len(real)} complete held-out data are too few"} for name in wanted}
    fake = sample_with_noise(sample_key(seed), run.model, run.params, len(real))
    sizes = {"num_real": len(real), "num_generated": len(fake)}
    results: dict[str, dict[str, Any]] = {}
    if "two_sample" in wanted:
        area, error = classifier_two_sample(real.reshape(len(real), -1), fake.reshape(len(fake), -1), seed)
        results["two_sample"] = {"value": area, "standard_error": error, **sizes}
    if "darcy" in wanted and real.ndim == 4:
        results["darcy"] = compare_pairs(run.form.decode(real), run.form.decode(fake)) | sizes
    return results


def _complete(values: np.ndarray) -> np.ndarray:
    """Data without missing values."""
    return values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]


def classifier_two_sample(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Area under the ROC curve of a classifier between rows of `a` and `b`, cross-validated: mean and standard error.

    0.5 is chance, 1 perfect separation (Lopez-Paz & Oquab, 2017). Missing values are allowed.
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
    return float(areas.mean()), float(areas.std(ddof=1) / np.sqrt(_FOLDS))


def verdict_of_two_sample(numbers: Mapping[str, Any]) -> str:
    """Whether samples differ from data significantly."""
    if numbers["value"] - 0.5 <= _ONE_SIDED * numbers["standard_error"]:  # an area below 0.5 is worse than chance
        return "samples and held-out data cannot be told apart"
    return "samples can be told from held-out data"
