"""Squared maximum mean discrepancy between two samples of features (KID; Binkowski et al., 2018)."""

import numpy as np

__all__ = ["kernel_distance"]

_ROWS = 2048  # rows in a block of the kernel matrix


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """The unbiased U-statistic with kernel (x.y / F + 1)^3, over all pairs rather than random subsets.

    Args:
      real, generated: [N, F] and [N', F] features, at least two rows each; computed in float64.

    Returns:
      The distance. Its expectation is that of the distributions, so it may be negative if they are close.
    """
    x, y = (np.asarray(a, np.float64) for a in (real, generated))
    within = sum((_kernel_sum(a, a) - _diagonal_sum(a)) / (len(a) * (len(a) - 1)) for a in (x, y))
    return float(within - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    return sum(float(np.sum((x[i : i + _ROWS] @ y.T / x.shape[1] + 1) ** 3)) for i in range(0, len(x), _ROWS))


def _diagonal_sum(x: np.ndarray) -> float:
    return float(np.sum((np.sum(x * x, axis=1) / x.shape[1] + 1) ** 3))
