"""Distances, fidelity, diversity and copying of samples in a space of features [N, F]."""

from collections.abc import Callable

import numpy as np

_ROWS = 512  # rows in a block of the kernel matrix
_NUM_GROUPS = 10


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared Frechet distance between Gaussians fitted to two samples (FID; Heusel et al., 2017).

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), biased upwards by O(1/N + 1/N'). With C = A^T A and A = Q R, tr (C
    C')^(1/2) is the sum of the singular values of R R'^T: exact to rounding, even if covariances are singular.
    """
    means, factors = zip(*(_mean_and_factor(np.asarray(x, np.float64)) for x in (real, generated)), strict=True)
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(float(np.sum(factor * factor)) for factor in factors)
    return float(np.sum((means[0] - means[1]) ** 2) + spread - 2 * overlap)


def _mean_and_factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [F], and R [min(N, F), F] with R^T R the unbiased covariance."""
    mean = x.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared maximum mean discrepancy (KID; Binkowski et al., 2018), with kernel (x.y / F + 1)^3: unbiased."""
    x, y = (np.asarray(a, np.float64) for a in (real, generated))
    diagonals = [float(np.sum((np.sum(a * a, axis=1) / a.shape[1] + 1) ** 3)) for a in (x, y)]
    within = sum((_kernel_sum(a, a) - d) / (len(a) * (len(a) - 1)) for a, d in zip((x, y), diagonals, strict=True))
    return float(within - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    blocks = (x[i : i + _ROWS] @ y.T / x.shape[1] + 1 for i in range(0, len(x), _ROWS))
    return sum(float(np.vdot(k * k, k)) for k in blocks)  # a power is slower


def jackknife(distance: Callable[[np.ndarray, np.ndarray], float], real: np.ndarray, generated: np.ndarray) -> float:
    """Standard error of a distance between samples of independent rows: the delete-a-tenth jackknife, shuffled."""
    if min(len(real), len(generated)) < 2 * _NUM_GROUPS:
        raise ValueError(f"{len(real)} real and {len(generated)} generated rows: a distance needs 20 of each")
    rng = np.random.default_rng(0)
    samples = [x[rng.permutation(len(x))] for x in (np.asarray(real), np.asarray(generated))]
    values = [distance(*(x[np.arange(len(x)) % _NUM_GROUPS != group] for x in samples)) for group in range(_NUM_GROUPS)]
    return float(np.sqrt((_NUM_GROUPS - 1) * np.var(values)))


def precision_and_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al., 2019).

    The share of generated points inside the real manifold, and of real points inside the generated one. A sample's
    manifold is the union of balls that reach to its points' k-th neighbours.
    """
    return _share_inside(generated, real, k), _share_inside(real, generated, k)


def density_and_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al., 2020), which outliers affect less.

    The mean number of real balls around a generated point divided by k, 1 in expectation for the real distribution,
    with no upper bound; and the share of real balls that hold a generated point.
    """
    radii = _radii(real, k)
    inside = _over_distances(generated, real, lambda d, _: np.sum(d <= radii, axis=1))
    return float(inside.mean() / k), float(np.mean(_nearest(real, generated) <= radii))


def copying(train: np.ndarray, held_out: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """How often a generated point's nearest neighbour is a held-out point, relative to their share of all data.

    If a model does not memorise, held-out points are as near as training points, however blurred its samples are.
    Returns the ratio, 1 for a model that generalises and 0 for one that repeats its training data, and its standard
    error under a ratio of 1; samples with the same neighbour do not count as independent.
    """
    from sklearn.metrics import pairwise_distances_argmin  # most of a second to import: only where it is used

    usual = np.median(_nearest(held_out, train))
    if usual <= 1e-5 * np.median(np.linalg.norm(train, axis=1)):  # equal points have the distance of rounding
        raise ValueError("half of the held-out data are in the training data too: copying cannot be measured")
    data = np.concatenate([train, held_out])
    neighbour = pairwise_distances_argmin(generated.astype(np.float64), data.astype(np.float64))
    share = len(held_out) / len(data)
    weight = np.bincount(neighbour, minlength=len(data)) / len(generated)
    error = np.sqrt(share * (1 - share) * np.sum(weight**2))
    return float(np.mean(neighbour >= len(train)) / share), float(error / share)


def _share_inside(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    radii = _radii(manifold, k)
    return float(_over_distances(points, manifold, lambda d, _: np.any(d <= radii, axis=1)).mean())


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    if len(x) <= k:
        raise ValueError(f"{len(x)} points have no {k}-th neighbour")
    return _over_distances(x, x, lambda d, _: np.partition(d, k, axis=1)[:, k])


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return _over_distances(points, others, lambda d, _: d.min(axis=1))


def _over_distances(
    points: np.ndarray, others: np.ndarray, reduce: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Applies `reduce` to distances [n, M] of chunks of points to the others, and joins the results: [N]."""
    from sklearn.metrics import pairwise_distances_chunked  # most of a second to import: only where it is used

    points, others = np.asarray(points, np.float64), np.asarray(others, np.float64)
    return np.concatenate(list(pairwise_distances_chunked(points, others, reduce_func=reduce, working_memory=16)))
