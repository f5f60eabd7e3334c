"""Neighbour metrics: against plain loops, and in the order that constructed models must have."""

import numpy as np
import pytest

from kaem_jax.evaluation.metrics.extrapolation import extrapolate
from kaem_jax.evaluation.metrics.frechet import frechet_distance
from kaem_jax.evaluation.metrics.kernel_distance import kernel_distance
from kaem_jax.evaluation.metrics.neighbours import copying, density_and_coverage, precision_and_recall


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


def test_equals_torch_fidelity(rng):
    pytest.importorskip("torch_fidelity", reason="the extra `inception` is not installed")
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, generated = rng.normal(size=(300, 6)), 0.8 * rng.normal(size=(300, 6)) + 0.3
    theirs = prc_features_to_metric(torch.from_numpy(generated), torch.from_numpy(real), verbose=False)
    np.testing.assert_allclose(
        precision_and_recall(real, generated), (theirs["precision"], theirs["recall"]), rtol=1e-6
    )


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
    fid = {name: extrapolate(frechet_distance, held_out, x)["infinity"] for name, x in models.items()}
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
