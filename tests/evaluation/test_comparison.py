"""`compare` against the metrics called by hand, on sets of unequal sizes that cannot stand for each other."""

import numpy as np
import pytest

from kaem_jax.evaluation.features import Extractor
from kaem_jax.evaluation.metrics.comparison import FEATURE_METRICS, compare
from kaem_jax.evaluation.metrics.extrapolation import extrapolate
from kaem_jax.evaluation.metrics.frechet import frechet_distance
from kaem_jax.evaluation.metrics.kernel_distance import kernel_distance
from kaem_jax.evaluation.metrics.neighbours import copying, density_and_coverage, precision_and_recall
from kaem_jax.evaluation.metrics.similarity import mean_pair_similarity


def test_each_set_of_images_has_its_own_role(rng):
    """Held-out images are varied, generated ones few and alike, training images near the generated ones."""
    held_out = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    generated = rng.integers(100, 160, (90, 8, 8, 1), dtype=np.uint8)
    train = rng.integers(90, 170, (130, 8, 8, 1), dtype=np.uint8)

    def features(pixels):
        return np.stack([pixels[:, i, i, 0] / 50.0 for i in range(3)], axis=1)

    real, fake, known = (features(images) for images in (held_out, generated, train))
    found = compare(
        (*FEATURE_METRICS, "diversity"), generated, held_out, lambda num: train[:num], Extractor("f", features)
    )

    for name, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
        expected = extrapolate(distance, real, fake)
        assert {key: found[name][key] for key in expected} == expected
        assert (found[name]["num_real"], found[name]["num_generated"]) == (60, 90)
        assert found[name]["value_of_training_images"] == distance(real, known[:90]) != expected["value"]
    few = compare(("fid", "kid"), generated, held_out, lambda num: train[:50], Extractor("f", features))
    for name in ("fid", "kid"):  # distances of fewer images have another bias
        assert few[name]["value"] == found[name]["value"]
        assert "value_of_training_images" not in few[name]
    fake = fake[:60]  # manifolds of samples of one size only can be compared
    precision, recall = precision_and_recall(real, fake, 3)
    density, coverage = density_and_coverage(real, fake, 5)
    assert abs(precision - recall) > 0.2
    assert (found["precision_recall"]["precision"], found["precision_recall"]["recall"]) == (precision, recall)
    assert (found["density_coverage"]["density"], found["density_coverage"]["coverage"]) == (density, coverage)
    assert (found["copying"]["ratio"], found["copying"]["standard_error"]) == copying(known, real, fake)
    assert found["copying"]["num_train"] == 130
    for name in ("precision_recall", "density_coverage", "copying"):
        assert (found[name]["num_real"], found[name]["num_generated"]) == (60, 60)
    for name, images in (("generated", generated), ("held_out", held_out)):
        mean, error = mean_pair_similarity(images.astype(np.float32) / 255)
        assert found["diversity"][f"ms_ssim_{name}"] == pytest.approx(mean, rel=1e-5)
        assert found["diversity"][f"ms_ssim_{name}_standard_error"] == pytest.approx(error, rel=1e-5)
    assert found["diversity"]["ms_ssim_generated"] > found["diversity"]["ms_ssim_held_out"] + 0.01
