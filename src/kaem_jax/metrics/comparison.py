"""A set of generated images against real ones, in a space of features and pixel by pixel."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kaem_jax.features import Extractor
from kaem_jax.metrics.extrapolation import extrapolate
from kaem_jax.metrics.frechet import frechet_distance
from kaem_jax.metrics.kernel_distance import kernel_distance
from kaem_jax.metrics.neighbours import copying, density_and_coverage, precision_and_recall
from kaem_jax.metrics.similarity import mean_pair_similarity, num_scales

__all__ = ["FEATURE_METRICS", "SAMPLE_METRICS", "compare"]

FEATURE_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "copying")
SAMPLE_METRICS = (*FEATURE_METRICS, "diversity")
_K_MANIFOLD, _K_COVERAGE = 3, 5


def compare(
    metrics: tuple[str, ...],
    generated: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    make_features: Callable[[], Extractor],
) -> dict[str, dict[str, Any]]:
    """Sample metrics of a model.

    Args:
      metrics: of `SAMPLE_METRICS`.
      generated, held_out, train: uint8 [N, H, W, C], all rounded alike. Only `copying` looks at training images.
      make_features: called only where a metric needs features.

    Returns:
      for each metric its numbers, what they are made from, and `seconds` without the extraction of features.

    Raises:
      ConfigError: the features cannot be had.
      ValueError: there are too few images.
    """
    results: dict[str, dict[str, Any]] = {}
    wanted = [name for name in FEATURE_METRICS if name in metrics]
    if wanted:
        extractor = make_features()
        real, fake = extractor(held_out), extractor(generated)
        known = extractor(train) if "copying" in wanted else None
        for name in wanted:
            started = time.perf_counter()
            results[name] = _feature_metric(name, real, fake, known) | {
                "features": extractor.name,
                "num_features": real.shape[1],
                "seconds": round(time.perf_counter() - started, 2),
            }
    if "diversity" in metrics:
        started = time.perf_counter()
        values: dict[str, float] = {}
        for name, images in (("generated", generated), ("held_out", held_out)):
            mean, error = mean_pair_similarity(images.astype(np.float32) / 255)
            values |= {f"ms_ssim_{name}": mean, f"ms_ssim_{name}_standard_error": error}
        results["diversity"] = values | {
            "num_scales": num_scales(*generated.shape[1:3]),
            "num_generated": len(generated),
            "seconds": round(time.perf_counter() - started, 2),
        }
    return results


def _feature_metric(name: str, real: np.ndarray, fake: np.ndarray, known: np.ndarray | None) -> dict[str, Any]:
    if name in ("fid", "kid"):
        distance = frechet_distance if name == "fid" else kernel_distance
        return extrapolate(distance, real, fake) | {"num_real": len(real), "num_generated": len(fake)}
    # Balls shrink as points grow more: only samples of one size have comparable manifolds.
    size = min(len(real), len(fake))
    real, fake = real[:size], fake[:size]
    sizes = {"num_real": size, "num_generated": size}
    if name == "precision_recall":
        precision, recall = precision_and_recall(real, fake, _K_MANIFOLD)
        return {"precision": precision, "recall": recall, "k": _K_MANIFOLD, **sizes}
    if name == "density_coverage":
        density, coverage = density_and_coverage(real, fake, _K_COVERAGE)
        return {"density": density, "coverage": coverage, "k": _K_COVERAGE, **sizes}
    assert known is not None
    return {"ratio": copying(known, real, fake), "num_train": len(known), **sizes}
