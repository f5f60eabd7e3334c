"""Diversity of a set of images, by multi-scale structural similarity (Wang et al., 2003)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["diversity", "mean_pair_similarity", "ms_ssim", "num_scales"]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MAX_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_BATCH = 250


def diversity(generated: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """Mean similarity of pairs of generated images, and of pairs of held-out images, uint8 [N, H, W, C]."""
    values: dict[str, Any] = {}
    for name, images in (("generated", generated), ("held_out", held_out)):
        mean, error = mean_pair_similarity(images.astype(np.float32) / 255)
        values |= {f"ms_ssim_{name}": mean, f"ms_ssim_{name}_standard_error": error}
    return values | {"num_scales": num_scales(*generated.shape[1:3]), "num_generated": len(generated)}


def mean_pair_similarity(images: np.ndarray, num_pairs: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean MS-SSIM over random pairs of different images [N, H, W, C] in [0, 1], and its standard error over pairs.

    The lower, the more diverse they are.

    Raises:
      ValueError: there are fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images have no pairs")
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(images), num_pairs)
    second = (first + rng.integers(1, len(images), num_pairs)) % len(images)
    cuts = range(_BATCH, num_pairs, _BATCH)
    values = np.concatenate(
        [ms_ssim(images[i], images[j]) for i, j in zip(np.split(first, cuts), np.split(second, cuts), strict=True)]
    )
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(num_pairs))


def num_scales(height: int, width: int) -> int:
    """The number of scales, at most five, whose coarsest image is not smaller than the window: 2 for 32 x 32."""
    side = min(height, width)
    return min(len(_WEIGHTS), 1 + max(0, math.floor(math.log2(side / _window(side)))))


def _window(side: int) -> int:
    """11 pixels, or the largest odd number that fits into a smaller image."""
    return min(_MAX_WINDOW, side - 1 + side % 2)


@jax.jit
def ms_ssim(first: Array, second: Array) -> Array:
    """Multi-scale structural similarity of pairs of images [N, H, W, C] in [0, 1]: [N], 1 for equal images.

    The exponents are those of the finest original scales that fit (at most five), scaled to sum to 1; negative contrast
    terms count as 0.
    """
    height, width = first.shape[1:3]
    scales, window = num_scales(height, width), _window(min(height, width))
    result = jnp.ones((), first.dtype)
    for scale in range(scales):
        mean_x, mean_y = _blur(first, window), _blur(second, window)
        var_x, var_y = _blur(first * first, window) - mean_x**2, _blur(second * second, window) - mean_y**2
        covariance = _blur(first * second, window) - mean_x * mean_y
        term = (2 * covariance + _C2) / (var_x + var_y + _C2)
        if scale == scales - 1:
            term = term * (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
        result = result * jnp.maximum(jnp.mean(term, axis=(1, 2)), 0) ** (_WEIGHTS[scale] / sum(_WEIGHTS[:scales]))
        first, second = _halve(first), _halve(second)
    return jnp.mean(result, axis=-1)


def _blur(x: Array, window: int) -> Array:
    """Applies a Gaussian window at positions where it fits, by one banded matrix for each axis."""
    taps = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / _SIGMA) ** 2)
    taps /= taps.sum()

    def band(size: int) -> Array:
        return jnp.asarray(sum(np.eye(size - window + 1, size, i) * tap for i, tap in enumerate(taps)), x.dtype)

    # Variances are differences of such results; accelerators' default precision would give errors of their size.
    return jnp.einsum("ih,jw,nhwc->nijc", band(x.shape[1]), band(x.shape[2]), x, precision="highest")


def _halve(x: Array) -> Array:
    """Means of 2 x 2 pixels; an odd last row or column is dropped."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
