"""Distances between samples of features, against independent formulas, known distributions and torch-fidelity."""

import numpy as np
import pytest
from scipy import linalg

from kaem_jax.evaluation.metrics.extrapolation import extrapolate
from kaem_jax.evaluation.metrics.frechet import frechet_distance
from kaem_jax.evaluation.metrics.kernel_distance import kernel_distance

MEAN_SHIFT, SCALE = 0.5, 1.3


def gaussians(rng, num_real, num_generated, size):
    """Samples of N(0, I) and N(shift, scale^2 I), and the distances of these distributions."""
    real = rng.normal(size=(num_real, size))
    generated = MEAN_SHIFT + SCALE * rng.normal(size=(num_generated, size))
    return real, generated, size * (MEAN_SHIFT**2 + (1 - SCALE) ** 2)


def kernel_truth(size):
    """E k(x, x') + E k(y, y') - 2 E k(x, y), k = (1 + x.y / F)^3, from the moments of x.y."""

    def expected(first_mean, second_mean, first_scale, second_scale):
        # s = x.y over independent coordinates: cumulants of one product a b, times the number of coordinates.
        a1, b1 = first_mean, second_mean
        a2, b2 = a1**2 + first_scale**2, b1**2 + second_scale**2
        a3, b3 = a1**3 + 3 * a1 * first_scale**2, b1**3 + 3 * b1 * second_scale**2
        m1, m2, m3 = a1 * b1, a2 * b2, a3 * b3
        k1, k2, k3 = m1, m2 - m1**2, m3 - 3 * m1 * m2 + 2 * m1**3
        mean, var, third = 1 + k1, k2 / size, k3 / size**2  # of 1 + s / F
        return third + 3 * mean * var + mean**3

    x, y = (0.0, 1.0), (MEAN_SHIFT, SCALE)
    return expected(x[0], x[0], 1, 1) + expected(y[0], y[0], SCALE, SCALE) - 2 * expected(x[0], y[0], 1, SCALE)


@pytest.mark.parametrize("sizes", [(300, 500, 20), (40, 30, 64)], ids=["many rows", "fewer rows than features"])
def test_frechet_distance_is_that_of_the_matrix_square_root(rng, sizes):
    real, generated, _ = gaussians(rng, *sizes)
    real = real @ rng.normal(size=(sizes[2], sizes[2]))  # correlated
    means = real.mean(0), generated.mean(0)
    covariances = np.cov(real.T), np.cov(generated.T)
    jitter = 1e-13 * np.eye(sizes[2])  # sqrtm of a singular product is what the package avoids
    root = linalg.sqrtm((covariances[0] + jitter) @ (covariances[1] + jitter)).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=1e-6)
    np.testing.assert_allclose(frechet_distance(real, real), 0, atol=1e-9 * np.trace(covariances[0]))


def test_kernel_distance_is_the_u_statistic(rng, monkeypatch):
    monkeypatch.setattr("kaem_jax.evaluation.metrics.kernel_distance._ROWS", 7)
    real, generated, _ = gaussians(rng, 30, 40, 5)

    def mean_kernel(a, b, skip_diagonal):
        pairs = [
            (1 + x @ y / 5) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if not (skip_diagonal and i == j)
        ]
        return np.mean(pairs)

    expected = (
        mean_kernel(real, real, True)
        + mean_kernel(generated, generated, True)
        - 2 * mean_kernel(real, generated, False)
    )
    np.testing.assert_allclose(kernel_distance(real, generated), expected, rtol=1e-9)


def test_both_equal_torch_fidelity(rng):
    pytest.importorskip("torch_fidelity", reason="the extra `inception` is not installed")
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, generated, _ = gaussians(rng, 400, 400, 24)
    tensors = torch.from_numpy(real), torch.from_numpy(generated)
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, tensors), False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(real, generated), fid, rtol=1e-6)
    whole = {"kid_subset_size": 400, "kid_subsets": 1, "verbose": False}
    kid = kid_features_to_metric(*tensors, **whole)["kernel_inception_distance_mean"]
    np.testing.assert_allclose(kernel_distance(real, generated), kid, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distance", "truth", "biased"),
    [
        (frechet_distance, lambda size: size * (MEAN_SHIFT**2 + (1 - SCALE) ** 2), True),
        (kernel_distance, kernel_truth, False),
    ],
    ids=["frechet", "kernel"],
)
def test_extrapolation_is_unbiased_and_its_error_calibrated(distance, truth, biased):
    """120 repeats with samples of 200 and 300: the limit is the distance of the distributions, within its own error."""
    size, repeats = 8, 120
    results = []
    for seed in range(repeats):
        real, generated, _ = gaussians(np.random.default_rng(seed), 200, 300, size)
        results.append(extrapolate(distance, real, generated, seed=seed))
    value, limit, error = (
        np.array([r[name] for r in results]) for name in ("value", "infinity", "infinity_standard_error")
    )
    exact, spread = truth(size), 1 / np.sqrt(repeats)
    assert abs(limit.mean() - exact) < 4 * limit.std() * spread
    assert (abs(value.mean() - exact) > 8 * value.std() * spread) == biased
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), limit.std(), rtol=0.3)
    np.testing.assert_allclose(np.sqrt(np.mean([r["standard_error"] ** 2 for r in results])), value.std(), rtol=0.3)


@pytest.mark.slow
def test_extrapolation_describes_its_line(rng):
    real, generated, _ = gaussians(rng, 400, 400, 40)
    result = extrapolate(frechet_distance, real, generated)
    assert result["r_squared"] > 0.99  # bias dominates in 40 dimensions
    assert result["infinity"] < result["value"]
    assert result == extrapolate(frechet_distance, real, generated)


def test_the_order_of_the_data_does_not_matter(rng):
    """Classes in turn, as sorted files have them: every second row would be of one class."""
    real, generated = (rng.normal(size=(600, 2)) + [[8.0, 0.0], [-8.0, 0.0]] * 300 for _ in range(2))
    result = extrapolate(frechet_distance, real, generated)
    assert abs(result["infinity"]) < 4 * result["infinity_standard_error"]
    shifted = extrapolate(frechet_distance, real, np.roll(generated, 1, axis=0))
    assert abs(shifted["infinity"] - result["infinity"]) < 4 * result["infinity_standard_error"]
    assert shifted["standard_error"] < 0.1  # unshuffled, the tenths that are left out would be classes


def test_extrapolation_needs_rows(rng, refuses):
    with refuses(ValueError, "19 real", "at least 20"):
        extrapolate(frechet_distance, rng.normal(size=(19, 2)), rng.normal(size=(50, 2)))
