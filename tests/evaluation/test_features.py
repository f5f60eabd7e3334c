"""Feature extractors: the default one, the user's own, and what is said where one cannot be had."""

import contextlib
import dataclasses
import sys
import types

import jax
import numpy as np
import pytest

from kaem_jax.data import Dataset, load_dataset, to_pixels
from kaem_jax.data.settings import DataSettings
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.evaluators.sample_comparison import prepare_features
from kaem_jax.evaluation.features import make_extractor
from kaem_jax.evaluation.features.classifier import classifier_features, classify, load_classifier, train_classifier
from kaem_jax.runs.experiment import Experiment


def mean_colour(pixels):
    """A user's extractor: two features of uint8 images."""
    return np.stack([pixels.mean(axis=(1, 2, 3)), pixels.std(axis=(1, 2, 3))], axis=1)


def wrong_shape(pixels):
    return pixels


UNLABELLED = Dataset(np.zeros((3, 4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1), np.uint8))


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataSettings())


def test_classifier_is_trained_once_saved_and_shared(digits, tmp_path):
    own = tmp_path / "run" / "classifier.npz"
    with jax.numpy_dtype_promotion("standard"):  # of optax
        first = make_extractor("classifier", own, "digits", digits)
    images, labels = to_pixels(digits.held_out), digits.held_out_labels(np.arange(360))
    features = first(images)
    assert features.shape == (360, 64)
    assert features.dtype == np.float64
    facts = load_classifier(own).facts
    assert facts["source"] == "digits"
    assert facts["held_out_accuracy"] > 0.93
    assert "classifier of digits (accuracy 9" in first.name
    assert "not Inception" in first.name
    for spec in ("classifier", str(own)):  # by its own run, and named by another one
        again = make_extractor(spec, own, "own", UNLABELLED)
        assert again.name == first.name
        np.testing.assert_array_equal(again(images), features)
    other = load_classifier(own)
    other.params["logits"]["bias"] = other.params["logits"]["bias"] + 1
    assert classifier_features(other).name != first.name  # distances in other features have another name
    # The features know classes: nearest neighbours in them are of one class far more often than those of pixels' means.
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1) + 1e9 * np.eye(360)
    assert np.mean(labels[distances.argmin(1)] == labels) > 0.9


def test_a_classifier_learns_from_the_training_split_alone(digits, rng, monkeypatch):
    """Random labels of the test split: they are guessed no better than by chance, those of the training split well."""
    monkeypatch.setattr("kaem_jax.evaluation.features.classifier._NUM_UPDATES", 100)
    rows, test_rows = np.arange(len(digits.train)), np.arange(360)
    labels = rng.permutation(digits.held_out_labels(test_rows))
    mixed = dataclasses.replace(digits, held_out_labels=labels.__getitem__)
    with jax.numpy_dtype_promotion("standard"):  # of optax
        classifier = train_classifier("digits", mixed)
    assert np.mean(classify(classifier, to_pixels(digits.train[rows])) == digits.train_labels(rows)) > 0.85
    found = np.mean(classify(classifier, to_pixels(digits.held_out)) == labels)
    assert classifier.facts["held_out_accuracy"] == pytest.approx(found, abs=1e-4)
    assert found < 0.2


def test_labels_that_are_no_classes_are_refused(digits, refuses):
    """Dates for instance: a network would have an output for each number below the largest."""
    labels = digits.train_labels(np.arange(len(digits.train))).copy()
    labels[3] = 20240101
    with refuses(ConfigError, "labels: 20240101 is too large"):
        train_classifier("digits", dataclasses.replace(digits, train_labels=labels.__getitem__))


def test_users_own(tmp_path, rng):
    pixels = rng.integers(0, 256, (300, 6, 6, 3), dtype=np.uint8)  # more than one batch
    ours = make_extractor("tests.evaluation.test_features:mean_colour", tmp_path / "c.npz", "own", UNLABELLED)
    assert ours.name == "tests.evaluation.test_features:mean_colour"
    np.testing.assert_allclose(ours(pixels), mean_colour(pixels))


def test_what_cannot_be_had_is_refused_in_one_sentence(tmp_path, refuses, digits, rng):
    own = tmp_path / "c.npz"
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "other.npz", a=rng.normal(size=1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:4000])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for spec, parts in {
        "inceptoin": ("'inceptoin'", "allowed: classifier, inception"),
        "classifier": ("labelled images", "allowed: inception"),
        "no.such:thing": ("no.such:thing", "cannot be imported"),
        str(tmp_path / "missing.npz"): ("missing.npz", "saved classifier"),
        **{
            str(tmp_path / f"{name}.npz"): (f"{name}.npz", "saved classifier")
            for name in ("damaged", "empty", "other", "cut", "array")
        },
        "os.path:sep": ("os.path:sep", "not a function"),
        f"inception:{tmp_path}/w.pth": ("features inception",),
    }.items():
        with refuses(ConfigError, *parts):
            make_extractor(spec, own, "own", UNLABELLED)
    assert not own.exists()
    with refuses(ValueError, "wrong_shape", "(250, 4, 4, 1)", "[N, F]"):
        make_extractor("tests.evaluation.test_features:wrong_shape", own, "own", UNLABELLED)(
            np.zeros((2, 4, 4, 1), np.uint8)
        )


@pytest.mark.parametrize("name", ["classifiers", "inception_small"])
def test_features_that_fail_are_refused_before_training_whatever_their_name(monkeypatch, tmp_path, refuses, name):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(embed=wrong_shape))
    with refuses(ConfigError, "embed", "[N, F]"):
        prepare_features(Experiment(), UNLABELLED, ("fid",), f"{name}:embed", tmp_path / "c.npz")


def test_inception_sees_colours_in_their_order(monkeypatch, tmp_path, rng):
    """Red, green and blue on the second axis. A stand-in for torch-fidelity's network returns what it is shown."""

    class Tensor(np.ndarray):
        def to(self, device):
            return self

        def cpu(self):
            return self

        def numpy(self):
            return np.asarray(self)

    class Network:
        def to(self, device):
            pass

        def __call__(self, images):
            return (images.mean(axis=(2, 3)),)

    torch = types.SimpleNamespace(
        cuda=types.SimpleNamespace(is_available=lambda: False),
        no_grad=contextlib.nullcontext,
        from_numpy=lambda values: values.view(Tensor),
    )
    networks = types.SimpleNamespace(FeatureExtractorInceptionV3=lambda *_, **__: Network(), URL_INCEPTION_V3="")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(feature_extractor_inceptionv3=networks))
    extractor = make_extractor("inception", tmp_path / "c.npz", "own", UNLABELLED)
    pixels = rng.integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(extractor(pixels), pixels.mean(axis=(1, 2)))
    grey = pixels[..., :1]
    np.testing.assert_allclose(extractor(grey), np.repeat(grey.mean(axis=(1, 2)), 3, axis=1))


def test_inception_without_weights_says_where_they_are(tmp_path, refuses):
    pytest.importorskip("torch_fidelity", reason="the extra `inception` is not installed")
    with refuses(ConfigError, "there is no such file"):
        make_extractor("inception:/no/such.pth", tmp_path, "own", UNLABELLED)
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    with refuses(ConfigError, "damaged.pth", "inception:FILE"):
        make_extractor(f"inception:{tmp_path}/damaged.pth", tmp_path, "own", UNLABELLED)
