"""Compares a set of generated images with real ones, in a space of features and pixel by pixel."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kaem_jax.evaluation.features import Extractor
from kaem_jax.evaluation.metrics.extrapolation import extrapolate
from kaem_jax.evaluation.metrics.frechet import frechet_distance
from kaem_jax.evaluation.metrics.kernel_distance import kernel_distance
from kaem_jax.evaluation.metrics.neighbours import copying, density_and_coverage, precision_and_recall
from kaem_jax.evaluation.metrics.similarity import mean_pair_similarity, num_scales

__all__ = ["FEATURE_METRICS", "SAMPLE_METRICS", "compare"]

FEATURE_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "copying")
SAMPLE_METRICS = (*FEATURE_METRICS, "diversity")
_OF_TRAINING = ("fid", "kid", "copying")
_DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}
_K_MANIFOLD, _K_COVERAGE = 3, 5
_MAX_TRAIN_IMAGES = 10_000  # that samples are looked for among


def compare(
    metrics: tuple[str, ...],
    generated: np.ndarray,
    held_out: np.ndarray,
    read_train: Callable[[int], np.ndarray],
    extractor: Extractor | None,
    independent: bool = True,
) -> dict[str, dict[str, Any]]:
    """Sample metrics of a model.

    Args:
      metrics: names from `SAMPLE_METRICS`.
      generated, held_out: uint8 [N, H, W, C], rounded in the same way, in random order.
      read_train: n to at most n training images, in the same form and in random order. `copying` needs them; `fid` and
        `kid` also report the distance of as many training images as there are generated ones, as a yardstick.
      extractor: computes features. Without one (None), metrics that need features give a `reason`.
      independent: whether the generated images are independent of each other. For Sobol points they are not: only the
        value of `fid` is reported then, and `kid` is refused.

    Returns:
      for each metric its numbers, what they are made from, and `seconds` without the extraction of features; or the
      `reason` why there are no numbers.
    """
    results: dict[str, dict[str, Any]] = {}
    features: dict[str, np.ndarray] = {}
    for name in metrics:
        started = time.perf_counter()
        try:
            if name == "diversity":
                results[name] = _diversity(generated, held_out)
            else:
                if extractor is None:
                    raise ValueError(
                        "the data have no labels to train a classifier with: give other features (--features, or "
                        "evaluation.features)"
                    )
                if not features:
                    features = {"real": extractor(held_out), "fake": extractor(generated)}
                if name in _OF_TRAINING and "known" not in features:
                    wanted = max(_MAX_TRAIN_IMAGES, len(generated)) if "copying" in metrics else len(generated)
                    features["known"] = extractor(read_train(wanted))
                started = time.perf_counter()
                results[name] = _feature_metric(name, **features, independent=independent)
                results[name] |= {"features": extractor.name, "num_features": features["real"].shape[1]}
            results[name]["seconds"] = round(time.perf_counter() - started, 2)
        except ValueError as error:
            results[name] = {"reason": str(error)}
    return results


def _diversity(generated: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, images in (("generated", generated), ("held_out", held_out)):
        mean, error = mean_pair_similarity(images.astype(np.float32) / 255)
        values |= {f"ms_ssim_{name}": mean, f"ms_ssim_{name}_standard_error": error}
    return values | {"num_scales": num_scales(*generated.shape[1:3]), "num_generated": len(generated)}


def _feature_metric(
    name: str, real: np.ndarray, fake: np.ndarray, known: np.ndarray | None = None, independent: bool = True
) -> dict[str, Any]:
    if name in ("fid", "kid"):
        found = _distance(name, real, fake, independent)
        assert known is not None
        if len(known) >= len(fake):  # distances of fewer images have another bias
            found["value_of_training_images"] = _DISTANCES[name](real, known[: len(fake)])
        return found | {"num_real": len(real), "num_generated": len(fake)}
    # Balls shrink as the number of points grows: only samples of equal size have comparable manifolds.
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
    known = known[:_MAX_TRAIN_IMAGES]
    ratio, error = copying(known, real, fake)
    return {"ratio": ratio, "standard_error": error, "num_train": len(known), **sizes}


def _distance(name: str, real: np.ndarray, fake: np.ndarray, independent: bool) -> dict[str, Any]:
    if not independent:
        if name == "kid":
            raise ValueError("KID is unbiased for independent samples only; draw random points")
        return {"value": _DISTANCES[name](real, fake)}
    result = extrapolate(_DISTANCES[name], real, fake)
    if name == "fid" and min(len(real), len(fake)) // 4 <= real.shape[1]:
        # Covariances of so few rows are singular, and the bias is no longer linear in 1 / N.
        return {key: result[key] for key in ("value", "standard_error")}
    return result
