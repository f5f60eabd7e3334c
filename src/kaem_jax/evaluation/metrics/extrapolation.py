"""Extrapolates a distance between two samples to infinite sample sizes, with standard errors."""

from collections.abc import Callable

import numpy as np

__all__ = ["extrapolate"]

_SPLITS = (1, 2, 3, 4)
_NUM_GROUPS = 10


def extrapolate(
    distance: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, generated: np.ndarray, seed: int = 0
) -> dict[str, float]:
    """A distance, and its limit as both samples grow (Chong and Forsyth, 2020), with jackknife standard errors.

    Both samples are shuffled. For the limit they are brought to one size and cut into 1, 2, 3 and 4 disjoint parts; the
    mean distance over the parts has a bias proportional to their number, and a straight line through the four means
    gives the value at zero. Unlike the paper's, the real sample shrinks too, so that its bias, which matters for a few
    hundred held-out data, is removed as well; and standard errors come from the data (delete-a-tenth jackknife), not
    from the line, whose points share data. A Frechet distance is near such a line only where the smallest part has
    more rows than features. It costs 121 distances, most of them between parts.

    Args:
      distance: a function of [N, F] and [N', F] features.
      real, generated: the samples, independent rows, at least 20 of each.
      seed: decides the shuffle.

    Returns:
      `value` for all rows and its `standard_error`; `infinity` and `infinity_standard_error`; `r_squared` of the line,
      1 where all means agree.

    Raises:
      ValueError: a sample has fewer than 20 rows.
    """
    if min(len(real), len(generated)) < 2 * _NUM_GROUPS:
        raise ValueError(
            f"{len(real)} real and {len(generated)} generated rows; an extrapolation needs at least "
            f"{2 * _NUM_GROUPS} of each"
        )
    rng = np.random.default_rng(seed)
    samples = [x[rng.permutation(len(x))] for x in (np.asarray(real), np.asarray(generated))]
    left_out = [[_without_group(x, group) for x in samples] for group in range(_NUM_GROUPS)]
    values = np.array([distance(*pair) for pair in left_out])
    means = _means_over_parts(distance, *samples)
    intercept, fitted = _line(means)
    intercepts = np.array([_line(_means_over_parts(distance, *pair))[0] for pair in left_out])
    total = np.sum((means - means.mean()) ** 2)
    return {
        "value": float(distance(*samples)),
        "standard_error": _jackknife(values),
        "infinity": intercept,
        "infinity_standard_error": _jackknife(intercepts),
        "r_squared": float(1 - np.sum((means - fitted) ** 2) / total) if total > 0 else 1.0,
    }


def _means_over_parts(distance: Callable[..., float], real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Four mean distances; part i takes every m-th row, and rows were shuffled before."""
    size = min(len(real), len(generated))
    real, generated = real[:size], generated[:size]
    return np.array([np.mean([distance(real[i::m], generated[i::m]) for i in range(m)]) for m in _SPLITS])


def _without_group(x: np.ndarray, group: int) -> np.ndarray:
    return x[np.arange(len(x)) % _NUM_GROUPS != group]


def _line(means: np.ndarray) -> tuple[float, np.ndarray]:
    """A least-squares line over the number of parts, to which bias is proportional: its value at 0 and at each number.

    The points have equal variances: each is a mean over m parts, which have m times the variance of the whole.
    """
    slope, intercept = np.polyfit(_SPLITS, means, 1)
    return float(intercept), intercept + slope * np.array(_SPLITS)


def _jackknife(values: np.ndarray) -> float:
    return float(np.sqrt((len(values) - 1) * np.var(values)))
