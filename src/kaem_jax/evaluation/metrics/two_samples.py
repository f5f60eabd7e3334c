"""Whether two samples of vectors come from one law: energy distance, and a classifier that tries to tell them apart."""

import numpy as np

__all__ = ["classifier_two_sample", "energy_distance"]

_FOLDS = 5


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'| for rows of `a` and `b`, without bias; 0 in expectation for one law.

    Székely & Rizzo (2013), Energy statistics, equation 5.
    """
    from scipy.spatial.distance import cdist, pdist

    return float(2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean())


def classifier_two_sample(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Area under the ROC curve of a classifier between rows of `a` and `b`, by cross-validation: mean and error.

    0.5 is what chance gives, 1 what samples give that are told apart always (Lopez-Paz & Oquab, 2017). Missing values
    are allowed.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    size = min(len(a), len(b))
    rows, classes = np.concatenate([a[:size], b[:size]]), np.repeat([0, 1], size)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    # Its default leaves of 20 rows would split no fold of less than 40, and call all samples good.
    leaf = min(20, max(1, size // 10))
    model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=leaf, random_state=seed)
    areas = cross_val_score(model, rows, classes, cv=folds, scoring="roc_auc")
    return float(areas.mean()), float(areas.std(ddof=1) / np.sqrt(_FOLDS))
