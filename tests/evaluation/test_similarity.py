"""MS-SSIM against a float64 sum over windows, and as a measure of diversity."""

import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.evaluation.evaluators.diversity import mean_pair_similarity, ms_ssim, num_scales

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def reference(x, y, window, scales):
    """Two images [H, W] in float64, window by window."""
    offsets = np.arange(window) - (window - 1) / 2
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    weights = WEIGHTS[:scales] / WEIGHTS[:scales].sum()
    result = 1.0
    for scale in range(scales):
        terms = []
        for i, j in np.ndindex(x.shape[0] - window + 1, x.shape[1] - window + 1):
            a, b = x[i : i + window, j : j + window], y[i : i + window, j : j + window]
            mean_a, mean_b = (kernel * a).sum(), (kernel * b).sum()
            var_a, var_b = (kernel * (a - mean_a) ** 2).sum(), (kernel * (b - mean_b) ** 2).sum()
            covariance = (kernel * (a - mean_a) * (b - mean_b)).sum()
            contrast = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
            luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            terms.append(contrast * (luminance if scale == scales - 1 else 1))
        result *= max(np.mean(terms), 0) ** weights[scale]
        x, y = (a[: a.shape[0] // 2 * 2, : a.shape[1] // 2 * 2] for a in (x, y))
        x, y = (a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2).mean((1, 3)) for a in (x, y))
    return result


@pytest.mark.parametrize(("side", "window", "scales"), [(8, 7, 1), (45, 11, 3)])
def test_against_windows_in_float64(x64, rng, side, window, scales):
    assert num_scales(side, side) == scales
    images = rng.random((2, side, side, 2))
    other = 0.6 * images + 0.4 * rng.random((2, side, side, 2))
    expected = [
        np.mean([reference(images[n, ..., c], other[n, ..., c], window, scales) for c in range(2)]) for n in range(2)
    ]
    np.testing.assert_allclose(ms_ssim(jnp.asarray(images), jnp.asarray(other)), expected, rtol=1e-9)
    assert [num_scales(side, side) for side in (4, 16, 32, 64, 256)] == [1, 1, 2, 3, 5]


def test_no_image_is_compared_with_itself_and_the_error_is_that_of_the_mean(rng):
    """Of two images there is one pair. 40 means of other pairs of the same images tell their deviation to 11 %."""
    images = rng.random((100, 8, 8, 1)).astype(np.float32)
    pair = np.stack([images[0], 0.7 * images[0] + 0.3 * images[1]])
    one, _ = mean_pair_similarity(pair, num_pairs=100)
    assert one == pytest.approx(float(ms_ssim(pair[:1], pair[1:])[0]), abs=1e-5)
    assert 0.2 < one < 0.95
    found = np.array([mean_pair_similarity(images, num_pairs=100, seed=seed) for seed in range(40)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.4)
    assert found[:, 0].mean() + 0.2 < one  # varied images are less alike
