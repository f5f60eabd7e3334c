"""Monotone maps of a column to normal scores: the inner functions of the Kolmogorov-Arnold theorem, learned.

A map joins quantiles of the column to those of N(0, 1) by monotone rational quadratics (Gregory and Delbourgo, 1982)
with the slopes of PCHIP (Fritsch and Butland, 1984). Beyond them it is linear. Its inverse and its derivative have
closed forms.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import interpolate, special, stats

_RESOLUTIONS = (6, 10, 16, 24, 40, 64, 100, 160, 256)
_ROWS_PER_KNOT = 5
_FINEST = 1e-3  # distance of knots, in deviations of the column: values that are closer count as ties


class MarginalMap(NamedTuple):
    """A map by its knots.

    Attributes:
      knots: values of the column, [B], increasing.
      scores: normal scores of the knots, [B], increasing.
    """

    knots: tuple[float, ...]
    scores: tuple[float, ...]

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of values x, float64 of any shape, and the logs of the derivatives there."""
        knots, scores, slopes = _splines(self)
        i = _interval(knots, x)
        width, rise, left, right = knots[i + 1] - knots[i], scores[i + 1] - scores[i], slopes[i], slopes[i + 1]
        secant, t = rise / width, np.clip((x - knots[i]) / width, 0, 1)
        both = t * (1 - t)
        bottom = secant + (left + right - 2 * secant) * both
        inside = scores[i] + rise * (secant * t**2 + left * both) / bottom
        log_slope = np.log(right * t**2 + 2 * secant * both + left * (1 - t) ** 2) + 2 * np.log(secant / bottom)
        beyond = np.minimum(x - knots[0], 0) * slopes[0] + np.maximum(x - knots[-1], 0) * slopes[-1]
        return inside + beyond, log_slope

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The values whose scores are z."""
        knots, scores, slopes = _splines(self)
        i = _interval(scores, z)
        width, rise, left, right = knots[i + 1] - knots[i], scores[i + 1] - scores[i], slopes[i], slopes[i + 1]
        secant, up = rise / width, np.clip(z - scores[i], 0, rise)
        excess = left + right - 2 * secant
        a, b, c = rise * (secant - left) + up * excess, rise * left - up * excess, -secant * up
        t = 2 * c / (-b - np.sqrt(np.maximum(b * b - 4 * a * c, 0)))
        beyond = np.minimum(z - scores[0], 0) / slopes[0] + np.maximum(z - scores[-1], 0) / slopes[-1]
        return knots[i] + t * width + beyond


def fitted_map(x: np.ndarray, held_out: np.ndarray) -> MarginalMap | None:
    """The map of the values x [N] under which held-out values are most probable; None if none gains.

    The number of knots is chosen, at most one for every five values.
    """
    best: tuple[float, MarginalMap | None] = (float(np.mean(stats.norm.logpdf(held_out))), None)
    for size in _RESOLUTIONS:
        if size * _ROWS_PER_KNOT > len(x) or (found := _of_quantiles(x, size)) is None:
            break
        z, log_slope = found.forward(held_out)
        best = max(best, (float(np.mean(stats.norm.logpdf(z) + log_slope)), found), key=lambda pair: pair[0])
    return best[1]


def _of_quantiles(x: np.ndarray, size: int) -> MarginalMap | None:
    level = (np.arange(size) + 0.5) / size
    knots = np.quantile(x, level)
    # Quantiles that are tied become one knot, whose level is the middle of theirs.
    knots, which, counts = np.unique(np.round(knots / _FINEST), return_inverse=True, return_counts=True)
    level = np.bincount(which.ravel(), level) / counts
    if len(knots) < 3:
        return None
    return MarginalMap(tuple((knots * _FINEST).tolist()), tuple(special.ndtri(level).tolist()))


@functools.lru_cache(maxsize=1024)
def _splines(fitted: MarginalMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots, scores, and slopes at the knots."""
    knots, scores = np.array(fitted.knots), np.array(fitted.scores)
    slopes = interpolate.PchipInterpolator(knots, scores).derivative()(knots)
    secants = np.diff(scores) / np.diff(knots)
    slopes[[0, -1]] = secants[[0, -1]]  # PCHIP's own may be 0, with which lines would have no inverse
    return knots, scores, slopes


def _interval(edges: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, at) - 1, 0, len(edges) - 2)
