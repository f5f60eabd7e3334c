"""Multi-scale structural similarity (Wang et al., 2003), and the diversity of a set of images measured by it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["mean_pair_similarity", "ms_ssim", "num_scales"]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MAX_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_BATCH = 250


def num_scales(height: int, width: int) -> int:
    """As many of the five scales as leave the coarsest image at least as large as the window: 2 for 32 x 32."""
    side = min(height, width)
    return min(len(_WEIGHTS), 1 + max(0, math.floor(math.log2(side / _window(side)))))


def _window(side: int) -> int:
    """11 pixels, or the largest odd number that fits into a smaller image."""
    return min(_MAX_WINDOW, side - 1 + side % 2)


@jax.jit
def ms_ssim(first: Array, second: Array) -> Array:
    """Multi-scale structural similarity of pairs of images.

    Args:
      first, second: [N, H, W, C] in [0, 1].

    Returns:
      [N], at most 1; equal images have 1. The exponents are those of the finest of the original five scales that fit,
      scaled to sum to 1; negative contrast terms count as 0.
    """
    height, width = first.shape[1:3]
    scales, window = num_scales(height, width), _window(min(height, width))
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    result = jnp.ones((), first.dtype)
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim_terms(first, second, window)
        term = contrast if scale < scales - 1 else luminance * contrast
        result = result * jnp.maximum(jnp.mean(term, axis=(1, 2)), 0) ** float(weight)
        first, second = _halve(first), _halve(second)
    return jnp.mean(result, axis=-1)


def _ssim_terms(x: Array, y: Array, window: int) -> tuple[Array, Array]:
    """Luminance, and contrast times structure, at every position of the window: [N, H', W', C] each."""
    blur = functools.partial(_blur, window=window)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, covariance = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_x + var_y + _C2)


def _blur(x: Array, window: int) -> Array:
    """Applies a Gaussian window at positions where it fits, by one banded matrix for each axis."""
    offsets = np.arange(window) - (window - 1) / 2
    taps = np.exp(-0.5 * (offsets / _SIGMA) ** 2)

    def band(size: int) -> Array:
        return jnp.asarray(
            sum(np.eye(size - window + 1, size, i) * tap for i, tap in enumerate(taps / taps.sum())), x.dtype
        )

    # Variances are differences of these: the rounding of an accelerator's default products would be as large.
    return jnp.einsum("ih,jw,nhwc->nijc", band(x.shape[1]), band(x.shape[2]), x, precision="highest")


def _halve(x: Array) -> Array:
    """Means of 2 x 2 pixels; an odd last row or column is dropped."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def mean_pair_similarity(images: np.ndarray, num_pairs: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean MS-SSIM over random pairs of different images: the lower, the more diverse they are.

    Args:
      images: [N, H, W, C] in [0, 1], N at least 2.

    Returns:
      the mean, and its standard error over pairs.

    Raises:
      ValueError: there are fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images have no pairs")
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(images), num_pairs)
    second = (first + rng.integers(1, len(images), num_pairs)) % len(images)
    values = np.concatenate(
        [
            np.asarray(ms_ssim(jnp.asarray(images[first[i : i + _BATCH]]), jnp.asarray(images[second[i : i + _BATCH]])))
            for i in range(0, num_pairs, _BATCH)
        ]
    )
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(num_pairs))
