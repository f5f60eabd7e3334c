"""Samples of tables and fields against held-out data: a two-sample test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kaem_jax.app.data import Pixels, Text
from kaem_jax.app.evaluation.evaluators.base import Evaluator, HeldOut, Numbers
from kaem_jax.app.evaluation.generate import sample_with_noise
from kaem_jax.jax_utils.keys import sample_key

_FOLDS = 5
_FEWEST = 2 * _FOLDS
_ONE_SIDED = 2.13  # standard errors from five folds that a mean exceeds by chance once in twenty times (Student)


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
        """Whether samples differ from data significantly."""
        if numbers["value"] - 0.5 <= _ONE_SIDED * numbers["standard_error"]:  # an area below 0.5 is worse than chance
            return "samples and held-out data cannot be told apart"
        return "samples can be told from held-out data"


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
