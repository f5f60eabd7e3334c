"""Where a univariate density has its modes, and how much of it belongs to each."""

import dataclasses
import itertools

import numpy as np

__all__ = ["Mode", "find_modes"]

_MIN_PROMINENCE = 0.01  # as a fraction of the highest mode


@dataclasses.dataclass(frozen=True)
class Mode:
    """A local maximum of a density.

    Attributes:
      location: where it is.
      height: the density there.
      mass: the probability between the valleys on both sides of it.
    """

    location: float
    height: float
    mass: float


def find_modes(z: np.ndarray, density: np.ndarray) -> list[Mode]:
    """Local maxima, also at an end of the support, that rise by at least 1 % of the highest above their valleys.

    Args:
      z: [N] increasing points.
      density: [N] values there, which may fall to 0 beyond the ends.

    Returns:
      from left to right; their masses add up to 1.
    """
    from scipy.signal import find_peaks  # takes a second to import: only where it is used

    walled = np.concatenate([[0.0], density, [0.0]])
    least = _MIN_PROMINENCE * density.max()
    peaks = list(find_peaks(walled, prominence=least)[0] - 1)
    valleys = [_lowest(density, *pair) for pair in itertools.pairwise(peaks)]
    # Peaks of equal height all count as prominent, whatever is between them: the shallowest valleys are removed first.
    while valleys:
        rises = [
            min(density[left], density[right]) - density[valley]
            for (left, right), valley in zip(itertools.pairwise(peaks), valleys, strict=True)
        ]
        i = int(np.argmin(rises))
        if rises[i] >= least:
            break
        peaks.pop(i if density[peaks[i]] < density[peaks[i + 1]] else i + 1)
        valleys = [_lowest(density, *pair) for pair in itertools.pairwise(peaks)]
    below = np.concatenate([[0.0], np.cumsum(np.diff(z) * (density[1:] + density[:-1]) / 2)])
    at_valleys = np.concatenate([[0.0], below[np.array(valleys, int)], [below[-1]]]) / below[-1]
    return [
        Mode(float(z[peak]), float(density[peak]), float(mass))
        for peak, mass in zip(peaks, np.diff(at_valleys), strict=True)
    ]


def _lowest(density: np.ndarray, first: int, last: int) -> int:
    return first + int(np.argmin(density[first : last + 1]))
