"""Distances between samples, against independent formulas and constructed models, and their features."""

import dataclasses
import sys
import types
from unittest import mock

import jax
import numpy as np
import pytest
from scipy import linalg, ndimage, stats
from scipy.spatial.distance import cdist

from kaem_jax.app.data import Dataset, load_dataset, to_pixels
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.evaluation.evaluators.distances import (
    copying,
    density_and_coverage,
    frechet_distance,
    jackknife,
    kernel_distance,
    precision_and_recall,
)
from kaem_jax.app.evaluation.evaluators.sample_comparison import SAMPLE_METRICS, classifier_two_sample, compare
from kaem_jax.app.evaluation.features import Extractor, make_extractor
from kaem_jax.app.evaluation.features.classifier import classifier_features, classify, load_classifier
from kaem_jax.app.evaluation.figures import radial_spectrum
from kaem_jax.errors import ConfigError
from tests.truth import assert_within


@pytest.mark.parametrize("sizes", [(300, 500, 20), (40, 30, 64)], ids=["many rows", "fewer rows than features"])
def test_frechet_distance_is_that_of_the_matrix_square_root(rng, sizes):
    num_real, num_generated, size = sizes
    real = rng.normal(size=(num_real, size)) @ rng.normal(size=(size, size))  # correlated
    generated = 0.5 + 1.3 * rng.normal(size=(num_generated, size))
    covariances = np.cov(real.T), np.cov(generated.T)
    jitter = 1e-13 * np.eye(size)  # sqrtm of a singular product is what the package avoids
    root = linalg.sqrtm((covariances[0] + jitter) @ (covariances[1] + jitter)).real
    expected = np.sum((real.mean(0) - generated.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(frechet_distance(real, generated), expected, rtol=1e-6)
    np.testing.assert_allclose(frechet_distance(real, real), 0, atol=1e-9 * np.trace(covariances[0]))


def test_kernel_distance_is_the_u_statistic(rng, monkeypatch):
    monkeypatch.setattr("kaem_jax.app.evaluation.evaluators.distances._ROWS", 7)
    real, generated = rng.normal(size=(30, 5)), 0.5 + rng.normal(size=(40, 5))

    def mean_kernel(a, b):
        return np.mean([(1 + x @ y / 5) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if a is not b or i != j])

    expected = mean_kernel(real, real) + mean_kernel(generated, generated) - 2 * mean_kernel(real, generated)
    np.testing.assert_allclose(kernel_distance(real, generated), expected, rtol=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_the_jackknife_is_calibrated_in_any_order(distance):
    """Two far classes in turn, as sorted files have them: unshuffled, the tenths that are left out would be classes."""
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real, generated = (rng.normal(size=(100, 3)) + [[2.0, 0, 0], [-2.0, 0, 0]] * 50 for _ in range(2))
        values.append(distance(real, generated + 0.5))
        errors.append(jackknife(distance, real, generated + 0.5))
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors))), np.std(values), rtol=0.35)


def test_neighbours_are_those_of_plain_loops(rng, refuses):
    real, generated = rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(50, 3)) + 0.4
    k = 3
    real_radii, generated_radii = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, generated))
    inside_real, inside_generated = cdist(generated, real) <= real_radii, cdist(real, generated) <= generated_radii
    assert precision_and_recall(real, generated, k) == (inside_real.any(1).mean(), inside_generated.any(1).mean())
    density, coverage = density_and_coverage(real, generated, k)
    np.testing.assert_allclose(density, inside_real.sum(1).mean() / k)
    assert coverage == inside_real.any(0).mean()
    with refuses(ValueError, "3 points", "5-th"):
        density_and_coverage(real[:3], generated)


def test_held_out_points_that_are_training_points_measure_no_copying(rng, refuses):
    """Also where the distance of equal features is that of rounding."""
    train = rng.normal(size=(200, 64)).astype(np.float32)
    held_out = np.concatenate([train[:60] * (1 + 1e-7), rng.normal(size=(40, 64))]).astype(np.float32)
    with refuses(ValueError, "half of the held-out data are in the training data"):
        copying(train, held_out, train[:50])
    assert copying(train, held_out[60:], train[:50])[0] == 0


def test_copies_are_told_from_blur_with_an_error_that_is_that_of_the_data(rng):
    """Samples nearer to the middle than data are, and two that stand for all: the ratio is 1 but for its error."""
    scores = {"good": [], "blurred": [], "collapsed": []}
    for _ in range(30):
        train, held_out = rng.normal(size=(300, 4)), rng.normal(size=(100, 4))
        generated = rng.normal(size=(100, 4))
        models = {"good": generated, "blurred": 0.5 * generated, "collapsed": 0.3 * generated[:2].repeat(50, axis=0)}
        for name, points in models.items():
            ratio, error = copying(train, held_out, points)
            scores[name].append((ratio - 1) / error)
    for found in scores.values():
        assert_within(np.mean(found), 0, 30**-0.5, 4.5)
        assert_within(np.std(found), 1, 60**-0.5, 4)
    for num in (300, 10):  # all training points are copied, or some again and again: few points say less than many
        ratio, error = copying(train, held_out, np.tile(train[:num], (300 // num, 1)))
        assert (ratio, error) == (0, pytest.approx(np.sqrt(3 / num)))


def test_each_set_of_images_has_its_own_role(rng):
    """Held-out images are varied, generated ones few and alike, training images near the generated ones."""
    held_out, generated, train = (
        rng.integers(low, high, (num, 8, 8, 1), dtype=np.uint8)
        for low, high, num in ((0, 256, 60), (100, 160, 90), (90, 170, 130))
    )

    def features(pixels):
        return np.stack([pixels[:, i, i, 0] / 50.0 for i in range(3)], axis=1)

    def compared(*metrics, generated=generated, num_train=130):
        of = Extractor("f", features)
        return compare(metrics, generated, held_out, lambda num: train[: min(num, num_train)], of)

    real, fake, known = (features(images) for images in (held_out, generated, train))
    found, few = compared(*SAMPLE_METRICS), compared("fid", "kid", num_train=50)
    for name, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
        assert found[name]["value"] == few[name]["value"] == distance(real, fake)
        assert found[name]["standard_error"] == jackknife(distance, real, fake)
        assert (found[name]["num_real"], found[name]["num_generated"]) == (60, 90)
        assert found[name]["value_of_training_images"] == distance(real, known[:90]) != found[name]["value"]
        assert "value_of_training_images" not in few[name]  # distances of fewer images have another bias
    fake = fake[:60]  # manifolds of samples of one size only can be compared
    precision, recall = precision_and_recall(real, fake, 3)
    density, coverage = density_and_coverage(real, fake, 5)
    ratio, error = copying(known, real, fake)
    assert abs(precision - recall) > 0.2
    for name, numbers in (
        ("precision_recall", {"precision": precision, "recall": recall}),
        ("density_coverage", {"density": density, "coverage": coverage}),
        ("copying", {"ratio": ratio, "standard_error": error, "num_train": 130}),
    ):
        assert found[name].items() >= (numbers | {"num_real": 60, "num_generated": 60}).items()
    assert "needs 20 of each" in compared("fid", generated=generated[:19])["fid"]["reason"]


def test_a_classifier_reaches_the_area_that_the_laws_allow(rng):
    """Of normal laws one deviation apart it is 0.76, where the best share of right answers is 0.69."""
    a, b = rng.normal(size=(1000, 1)), rng.normal(1, 1, size=(1200, 1))
    area, error = classifier_two_sample(a, b)
    assert area == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.05)
    assert error < 0.03
    pairs = np.stack([a, b[:1000]])[:, :800].reshape(2, 16, 50, 1)
    areas, errors = np.array([classifier_two_sample(*pairs[:, i], seed=i) for i in range(16)]).T
    low, high = stats.chi2(15).ppf([0.025, 0.975]) / 15
    assert low < np.var(areas, ddof=1) / np.mean(errors**2) < high
    assert classifier_two_sample(a, rng.normal(size=(1000, 1)))[0] == pytest.approx(0.5, abs=0.06)
    assert classifier_two_sample(a[:12], b[:12] + 100)[0] > 0.95  # trees with leaves of 20 rows would split none


def test_the_spectrum_of_waves():
    """A cosine of wave number 3 along one side and amplitude 2 has its mean square, 2, on the ring of 3."""
    field = np.broadcast_to(2 * np.cos(2 * np.pi * 3 * np.arange(16) / 16), (5, 16, 16))
    wave_numbers, power = radial_spectrum(field)
    np.testing.assert_array_equal(wave_numbers, np.arange(1, 9))
    on_ring = np.sum(np.round(np.hypot(*np.meshgrid(*[np.fft.fftfreq(16, 1 / 16)] * 2))) == 3)
    np.testing.assert_allclose(power * on_ring, 2 * (wave_numbers == 3), rtol=1e-6, atol=1e-10)


def mean_colour(pixels):
    """A user's extractor: two features of uint8 images."""
    return np.stack([pixels.mean(axis=(1, 2, 3)), pixels.std(axis=(1, 2, 3))], axis=1)


UNLABELLED = Dataset(np.zeros((3, 4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1), np.uint8))


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataSettings())


def test_a_classifier_learns_from_the_training_split_alone_once_saved_and_shared(digits, tmp_path, rng, monkeypatch):
    """Random labels of the test split: they are guessed no better than by chance, those of the training split well."""
    monkeypatch.setattr("kaem_jax.app.evaluation.features.classifier._NUM_UPDATES", 100)
    own, images, truth = tmp_path / "run" / "c.npz", to_pixels(digits.held_out), digits.held_out_labels(np.arange(360))
    mixed = dataclasses.replace(digits, held_out_labels=rng.permutation(truth).__getitem__)
    with jax.numpy_dtype_promotion("standard"):  # of optax
        first = make_extractor("classifier", own, "digits", mixed)
    classifier, features = load_classifier(own), first(images)
    assert np.mean(classify(classifier, images) == truth) > 0.85
    found = np.mean(classify(classifier, images) == mixed.held_out_labels(np.arange(360)))
    assert classifier.facts["held_out_accuracy"] == pytest.approx(found, abs=1e-4)
    assert found < 0.2
    assert (features.shape, features.dtype, classifier.facts["source"]) == ((360, 64), np.float64, "digits")
    for part in ("classifier of digits (accuracy ", "not Inception"):
        assert part in first.name
    for spec in ("classifier", str(own)):  # by its own run, and named by another one
        again = make_extractor(spec, own, "own", Dataset(digits.train, digits.held_out))
        assert again.name == first.name
        np.testing.assert_array_equal(again(images), features)
    # The features know classes: nearest neighbours in them are of one class far more often than those of pixels' means.
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1) + 1e9 * np.eye(360)
    assert np.mean(truth[distances.argmin(1)] == truth) > 0.85
    classifier.params["logits"]["bias"] = classifier.params["logits"]["bias"] + 1
    assert classifier_features(classifier).name != first.name  # distances in other features have another name


def test_features_that_cannot_be_had_are_refused_in_one_sentence_before_training(tmp_path, refuses, rng, monkeypatch):
    own, failing = tmp_path / "c.npz", ("classifiers", "inception_small")  # whatever the name of a module begins with
    for name in failing:
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(embed=lambda pixels: pixels))
    np.savez(tmp_path / "cut.npz", a=rng.normal(size=1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:4000])
    for spec, parts in {
        "inceptoin": ("'inceptoin'", "allowed: classifier, random, inception"),
        "classifier": ("labelled images", "allowed: random, inception"),
        "no.such:thing": ("no.such:thing", "cannot be imported"),
        **{str(tmp_path / name): (name, "saved classifier") for name in ("missing.npz", "cut.npz")},
        "os.path:sep": ("os.path:sep", "cannot be computed"),
        **{f"{name}:embed": ("embed", "(250, 4, 4, 1)", "[N, F]") for name in failing},
        f"inception:{tmp_path}/w.pth": ("features inception",),
    }.items():
        with refuses(ConfigError, *parts):
            make_extractor(spec, own, "own", UNLABELLED)
    assert not own.exists()


def test_inception_sees_colours_in_their_order(monkeypatch, tmp_path, rng):
    """Red, green and blue on the second axis. A stand-in for torch-fidelity's network returns what it is shown."""
    network, torch, asked = mock.MagicMock(), mock.MagicMock(), []
    torch.from_numpy.side_effect = lambda images: mock.Mock(to=lambda device: images)
    network.side_effect = lambda images: [mock.Mock(cpu=lambda: mock.Mock(numpy=lambda: images.mean(axis=(2, 3))))]
    networks = types.SimpleNamespace(
        FeatureExtractorInceptionV3=lambda *given, **named: asked.append((given, named)) or network, URL_INCEPTION_V3=""
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(feature_extractor_inceptionv3=networks))
    extractor = make_extractor("inception", tmp_path / "c.npz", "own", UNLABELLED)
    options = {"feature_extractor_weights_path": None, "verbose": False}
    assert asked == [(("inception-v3-compat", ["2048"]), options)]
    pixels = rng.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(extractor(pixels), pixels.mean(axis=(1, 2)))
    grey = pixels[..., :1]
    np.testing.assert_allclose(extractor(grey), np.repeat(grey.mean(axis=(1, 2)), 3, axis=1))


def test_random_features_need_no_labels_and_see_what_is_wrong_with_images(tmp_path):
    """Distances grow with noise and with blur; a grey image has the features of its three equal channels."""
    images = to_pixels(load_dataset(DataSettings()).train[np.arange(1400)])
    extractor = make_extractor("random", tmp_path / "c.npz", "own", UNLABELLED)
    real, other = extractor(images[:700]), extractor(images[700:])
    assert (real.shape, extractor.name) == ((700, 96), "random")  # two layers: 8 pixels are 2 after them
    np.testing.assert_array_equal(extractor(np.repeat(images[:100], 3, axis=-1)), real[:100])
    noise = np.random.default_rng(0).normal(size=images[700:].shape)
    worse = [np.clip(images[700:] + scale * noise, 0, 255).astype(np.uint8) for scale in (10, 30, 90)]
    blurred = [ndimage.gaussian_filter(images[700:], (0, width, width, 0)) for width in (0.5, 1.0)]
    for changed in (worse, blurred):
        found = [frechet_distance(real, features) for features in (other, *map(extractor, changed))]
        assert found == sorted(found)
        assert found[2] > 2 * found[0]
