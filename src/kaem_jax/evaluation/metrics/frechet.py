"""Frechet distance between two samples of features (FID; Heusel et al., 2017)."""

import numpy as np

__all__ = ["frechet_distance"]


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared Frechet distance between Gaussians fitted to two samples: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).

    With C = A^T A and A = Q R, tr (C C')^(1/2) is the sum of the singular values of R R'^T: exact to rounding, unlike
    a matrix square root, even if there are fewer rows than features and covariances are singular.

    Args:
      real, generated: [N, F] and [N', F] features, at least two rows each; computed in float64.

    Returns:
      The distance, at least 0 up to rounding. Biased upwards by O(1/N + 1/N'): see `extrapolate`.
    """
    means, factors = zip(*(_mean_and_factor(np.asarray(x, np.float64)) for x in (real, generated)), strict=True)
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(float(np.sum(factor * factor)) for factor in factors)
    return float(np.sum((means[0] - means[1]) ** 2) + spread - 2 * overlap)


def _mean_and_factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [F], and R [min(N, F), F] with R^T R the unbiased covariance."""
    mean = x.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))
