"""Fidelity, diversity and copying by nearest neighbours in a space of features."""

import numpy as np

__all__ = ["copying", "density_and_coverage", "precision_and_recall"]


def precision_and_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al., 2019).

    Args:
      real, generated: [N, F] and [N', F] features.
      k: each sample's manifold is the union of balls that reach to its points' k-th neighbours.

    Returns:
      the share of generated points inside the real manifold, and of real points inside the generated one.
    """
    return _share_inside(generated, real, k), _share_inside(real, generated, k)


def density_and_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al., 2020), which outliers affect less; arguments as for `precision_and_recall`.

    Returns:
      the mean number of real balls around a generated point divided by k (1 in expectation for the real distribution,
      with no upper bound), and the share of real balls that hold a generated point.
    """
    radii = _radii(real, k)
    inside = np.concatenate(list(_distances(generated, real, lambda d, _: np.sum(d <= radii, axis=1))))
    nearest = _nearest(real, generated)
    return float(inside.mean() / k), float(np.mean(nearest <= radii))


def copying(train: np.ndarray, held_out: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """How often a generated point's nearest neighbour among all data is a held-out point, as a share of the usual.

    Usual is the share of held-out points among the data: for a model that learned no datum by heart they are as near as
    training points, however blurred its samples are.

    Args:
      train, held_out, generated: [N, F] features.

    Returns:
      the ratio, 1 for a model that generalises and 0 for one that repeats its training data, and its standard error
      where it is 1: points near which many samples lie count as one each.

    Raises:
      ValueError: half of the held-out points are training points themselves.
    """
    from sklearn.metrics import pairwise_distances_argmin  # most of a second to import: only where it is used

    usual = np.median(_nearest(held_out, train))
    # Of equal points in two arrays the computed distance is that of rounding.
    if usual <= 1e-5 * np.median(np.linalg.norm(train, axis=1)):
        raise ValueError("half of the held-out data are in the training data too: copying cannot be measured")
    data = np.concatenate([train, held_out])
    neighbour = pairwise_distances_argmin(generated.astype(np.float64), data.astype(np.float64))
    share = len(held_out) / len(data)
    weight = np.bincount(neighbour, minlength=len(data)) / len(generated)
    error = np.sqrt(share * (1 - share) * np.sum(weight**2))
    return float(np.mean(neighbour >= len(train)) / share), float(error / share)


def _share_inside(points: np.ndarray, manifold: np.ndarray, k: int) -> float:
    radii = _radii(manifold, k)
    inside = np.concatenate(list(_distances(points, manifold, lambda d, _: np.any(d <= radii, axis=1))))
    return float(inside.mean())


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Distance [N] of each point to its k-th neighbour, not counting the point itself.

    Raises:
      ValueError: there are too few points.
    """
    if len(x) <= k:
        raise ValueError(f"{len(x)} points have no {k}-th neighbour")
    return np.concatenate(list(_distances(x, x, lambda d, _: np.partition(d, k, axis=1)[:, k])))


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate(list(_distances(points, others, lambda d, _: d.min(axis=1))))


def _distances(points, others, reduce):
    from sklearn.metrics import pairwise_distances_chunked  # most of a second to import: only where it is used

    return pairwise_distances_chunked(
        np.asarray(points, np.float64), np.asarray(others, np.float64), reduce_func=reduce, working_memory=256
    )
