"""Feature extractors: the default one, the user's own, and what is said where one cannot be had."""

import dataclasses
import sys
import types
from unittest import mock

import jax
import numpy as np
import pytest
from scipy import ndimage

from kaem_jax.app.data import Dataset, load_dataset, to_pixels
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.evaluation.evaluators.distances import frechet_distance
from kaem_jax.app.evaluation.features import make_extractor
from kaem_jax.app.evaluation.features.classifier import classifier_features, classify, load_classifier
from kaem_jax.errors import ConfigError


def mean_colour(pixels):
    """A user's extractor: two features of uint8 images."""
    return np.stack([pixels.mean(axis=(1, 2, 3)), pixels.std(axis=(1, 2, 3))], axis=1)


def wrong_shape(pixels):
    return pixels


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


def test_what_cannot_be_had_is_refused_in_one_sentence(tmp_path, refuses, rng):
    own = tmp_path / "c.npz"
    np.savez(tmp_path / "cut.npz", a=rng.normal(size=1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:4000])
    for spec, parts in {
        "inceptoin": ("'inceptoin'", "allowed: classifier, random, inception"),
        "classifier": ("labelled images", "allowed: random, inception"),
        "no.such:thing": ("no.such:thing", "cannot be imported"),
        **{str(tmp_path / name): (name, "saved classifier") for name in ("missing.npz", "cut.npz")},
        "os.path:sep": ("os.path:sep", "cannot be computed"),
        f"inception:{tmp_path}/w.pth": ("features inception",),
    }.items():
        with refuses(ConfigError, *parts):
            make_extractor(spec, own, "own", UNLABELLED)
    assert not own.exists()


@pytest.mark.parametrize("name", ["classifiers", "inception_small"])
def test_features_that_fail_are_refused_before_training_whatever_their_name(monkeypatch, tmp_path, refuses, name):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(embed=wrong_shape))
    with refuses(ConfigError, "embed", "(250, 4, 4, 1)", "[N, F]"):
        make_extractor(f"{name}:embed", tmp_path / "c.npz", "own", UNLABELLED)


def test_inception_sees_colours_in_their_order(monkeypatch, tmp_path, rng):
    """Red, green and blue on the second axis. A stand-in for torch-fidelity's network returns what it is shown."""
    network, torch = mock.MagicMock(), mock.MagicMock()
    torch.from_numpy.side_effect = lambda images: mock.Mock(to=lambda device: images)
    network.side_effect = lambda images: [mock.Mock(cpu=lambda: mock.Mock(numpy=lambda: images.mean(axis=(2, 3))))]
    networks = types.SimpleNamespace(FeatureExtractorInceptionV3=lambda *_, **__: network, URL_INCEPTION_V3="")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(feature_extractor_inceptionv3=networks))
    extractor = make_extractor("inception", tmp_path / "c.npz", "own", UNLABELLED)
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
