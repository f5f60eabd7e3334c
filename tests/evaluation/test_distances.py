"""Distances and neighbours of features, against independent formulas, constructed models and torch-fidelity."""

import numpy as np
import pytest
from scipy import linalg

from kaem_jax.evaluation.evaluators.distances import (
    copying,
    density_and_coverage,
    frechet_distance,
    jackknife,
    kernel_distance,
    precision_and_recall,
)
from kaem_jax.evaluation.evaluators.diversity import mean_pair_similarity
from kaem_jax.evaluation.evaluators.sample_comparison import FEATURE_METRICS, compare
from kaem_jax.evaluation.features import Extractor

MEAN_SHIFT, SCALE = 0.5, 1.3


def gaussians(rng, num_real, num_generated, size):
    """Samples of N(0, I) and N(shift, scale^2 I)."""
    real = rng.normal(size=(num_real, size))
    generated = MEAN_SHIFT + SCALE * rng.normal(size=(num_generated, size))
    return real, generated


@pytest.mark.parametrize("sizes", [(300, 500, 20), (40, 30, 64)], ids=["many rows", "fewer rows than features"])
def test_frechet_distance_is_that_of_the_matrix_square_root(rng, sizes):
    real, generated = gaussians(rng, *sizes)
    real = real @ rng.normal(size=(sizes[2], sizes[2]))  # correlated
    means = real.mean(0), generated.mean(0)
    covariances = np.cov(real.T), np.cov(generated.T)
    jitter = 1e-13 * np.eye(sizes[2])  # sqrtm of a singular product is what the package avoids
    root = linalg.sqrtm((covariances[0] + jitter) @ (covariances[1] + jitter)).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=1e-6)
    np.testing.assert_allclose(frechet_distance(real, real), 0, atol=1e-9 * np.trace(covariances[0]))


def test_kernel_distance_is_the_u_statistic(rng, monkeypatch):
    monkeypatch.setattr("kaem_jax.evaluation.evaluators.distances._ROWS", 7)
    real, generated = gaussians(rng, 30, 40, 5)

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


def test_distances_equal_those_of_torch_fidelity(rng):
    pytest.importorskip("torch_fidelity", reason="the extra `inception` is not installed")
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, generated = gaussians(rng, 400, 400, 24)
    tensors = torch.from_numpy(real), torch.from_numpy(generated)
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, tensors), False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(real, generated), fid, rtol=1e-6)
    whole = {"kid_subset_size": 400, "kid_subsets": 1, "verbose": False}
    kid = kid_features_to_metric(*tensors, **whole)["kernel_inception_distance_mean"]
    np.testing.assert_allclose(kernel_distance(real, generated), kid, rtol=1e-6)
    theirs = prc_features_to_metric(tensors[1], tensors[0], verbose=False)
    expected = theirs["precision"], theirs["recall"]
    np.testing.assert_allclose(precision_and_recall(real, generated), expected, rtol=1e-6)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_the_jackknife_is_calibrated_in_any_order(distance):
    """Two far classes in turn, as sorted files have them: unshuffled, the tenths that are left out would be classes."""
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real, generated = (rng.normal(size=(200, 3)) + [[2.0, 0, 0], [-2.0, 0, 0]] * 100 for _ in range(2))
        values.append(distance(real, generated + 0.5))
        errors.append(jackknife(distance, real, generated + 0.5))
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors))), np.std(values), rtol=0.35)


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def test_against_plain_loops(rng):
    real, generated = rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(50, 3)) + 0.4
    k = 3
    real_radii = np.sort(distances(real, real), axis=1)[:, k]
    generated_radii = np.sort(distances(generated, generated), axis=1)[:, k]
    inside_real = distances(generated, real) <= real_radii
    inside_generated = distances(real, generated) <= generated_radii
    assert precision_and_recall(real, generated, k) == (inside_real.any(1).mean(), inside_generated.any(1).mean())
    density, coverage = density_and_coverage(real, generated, k)
    np.testing.assert_allclose(density, inside_real.sum(1).mean() / k)
    assert coverage == (distances(real, generated) <= real_radii[:, None]).any(1).mean()


def test_same_distribution_has_density_one(rng):
    density, coverage = density_and_coverage(rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4)))
    np.testing.assert_allclose(density, 1, atol=0.06)
    np.testing.assert_allclose(coverage, 1 - 0.5**5, atol=0.03)  # 1 - (N / (N + M))^k, Naeem et al., section 3.2


def test_too_few_points(rng, refuses):
    with refuses(ValueError, "3 points", "5-th"):
        density_and_coverage(rng.normal(size=(3, 2)), rng.normal(size=(9, 2)))


def test_held_out_points_that_are_training_points_measure_no_copying(rng, refuses):
    """Also where the distance of equal features is that of rounding."""
    train = rng.normal(size=(200, 64)).astype(np.float32)
    held_out = np.concatenate([train[:60] * (1 + 1e-7), rng.normal(size=(40, 64))]).astype(np.float32)
    with refuses(ValueError, "half of the held-out data are in the training data"):
        copying(train, held_out, train[:50])
    assert copying(train, held_out[60:], train[:50])[0] == 0


def test_good_collapsed_and_memorising_models_order_as_they_must(rng):
    """Ten clusters. Good: new draws. Collapsed: one cluster. Memorising: 30 training points. Copying: all of them."""
    centres = 4 * rng.normal(size=(10, 5))

    def draw(n, clusters=10):
        return centres[rng.integers(0, clusters, n)] + 0.5 * rng.normal(size=(n, 5))

    train, held_out = draw(1500), draw(500)
    models = {
        "good": draw(500),
        "collapsed": draw(500, clusters=1),
        "memorising": train[rng.integers(0, 30, 500)],
        "copying": train[rng.permutation(1500)[:500]],
    }
    fid = {name: frechet_distance(held_out, x) for name, x in models.items()}
    kid = {name: kernel_distance(held_out, x) for name, x in models.items()}
    recall = {name: precision_and_recall(held_out, x)[1] for name, x in models.items()}
    precision = {name: precision_and_recall(held_out, x)[0] for name, x in models.items()}
    coverage = {name: density_and_coverage(held_out, x)[1] for name, x in models.items()}
    copied = {name: copying(train, held_out, x) for name, x in models.items()}
    for score in (fid, kid):
        assert score["good"] < score["memorising"] < score["collapsed"]
    for score in (recall, coverage):
        assert score["good"] > 0.85
        assert score["memorising"] < 0.5
        assert score["collapsed"] < 0.2
    assert min(precision.values()) > 0.85  # every one of them makes points where data are
    # Copies of the whole training set have the best of all other numbers: only this one tells.
    assert fid["copying"] < 2 * fid["good"] + 1
    assert copied["copying"][0] == copied["memorising"][0] == 0
    assert copied["memorising"][1] == pytest.approx(np.sqrt(3 / 30), rel=0.1)  # 30 points say less than 500
    assert copied["copying"][1] == pytest.approx(np.sqrt(3 / 500))


def test_blur_is_no_copying_and_its_error_is_that_of_the_data(rng):
    """Samples nearer to the middle than data are, and two that stand for all: the ratio is 1 but for its error."""
    scores = {"good": [], "blurred": [], "collapsed": []}
    for _ in range(60):
        train, held_out = rng.normal(size=(300, 4)), rng.normal(size=(100, 4))
        generated = rng.normal(size=(100, 4))
        models = {"good": generated, "blurred": 0.5 * generated, "collapsed": 0.3 * generated[:2].repeat(50, axis=0)}
        for name, points in models.items():
            ratio, error = copying(train, held_out, points)
            scores[name].append((ratio - 1) / error)
    for name, found in scores.items():
        assert abs(np.mean(found)) < 4.5 / np.sqrt(60), name
        assert 0.7 < np.std(found) < 1.35, name  # of 60: four standard errors


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
        assert found[name]["value"] == distance(real, fake)
        assert found[name]["standard_error"] == jackknife(distance, real, fake)
        assert (found[name]["num_real"], found[name]["num_generated"]) == (60, 90)
        assert found[name]["value_of_training_images"] == distance(real, known[:90]) != found[name]["value"]
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
    too_few = compare(("fid",), generated[:19], held_out, lambda num: train[:num], Extractor("f", features))["fid"]
    assert "needs 20 of each" in too_few["reason"]
    assert "no labels" in compare(("kid",), generated, held_out, lambda num: train[:num], None)["kid"]["reason"]
