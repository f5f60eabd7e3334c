"""Feature extractors, which turn images into vectors before samples are compared."""

import importlib
import operator
import pathlib
from collections.abc import Callable

import numpy as np

from kaem_jax.devices.processes import is_writer
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.features.base import Extractor
from kaem_jax.evaluation.features.classifier import (
    LabelledImages,
    classifier_features,
    load_classifier,
    save_classifier,
    train_classifier,
)
from kaem_jax.evaluation.features.inception import inception_extractor

__all__ = ["Extractor", "LabelledImages", "make_extractor"]

_ALLOWED = (
    "classifier, inception, inception:WEIGHTS.pth, a classifier.npz of another run, FILE.jaxexport of a serialised "
    "jax.export function, or package.module:function"
)


def make_extractor(spec: str, own: pathlib.Path, labelled: Callable[[], LabelledImages | None]) -> Extractor:
    """The feature extractor that a user names.

    Args:
      spec: `classifier`: a small network trained on the labelled training split, kept in the file `own`; `inception` or
        `inception:WEIGHTS.pth`: InceptionV3 by torch-fidelity (the extra `inception`), weights from its cache or from a
        file; the `classifier.npz` of another run, so that runs share one space of features; `FILE.jaxexport`: a
        function of uint8 [250, H, W, C] or [N, H, W, C], N symbolic, that `jax.export` serialised;
        `package.module:function`: a function of uint8 NumPy arrays [N, H, W, C].
      own: where this run's classifier is, or will be written.
      labelled: reads the data for `classifier`; returns None if they have no labels.

    Raises:
      ConfigError: `spec` names no features that are available; the message says what is allowed.
    """
    if spec == "classifier":
        if own.exists():
            return classifier_features(load_classifier(own))
        data = labelled()
        if data is None:
            raise ConfigError(
                "features 'classifier' need labelled images, and these data are not; allowed: "
                + _ALLOWED.removeprefix("classifier, ")
            )
        classifier = train_classifier(data)
        if is_writer():
            save_classifier(own, classifier)
        return classifier_features(classifier)
    name, _, rest = spec.partition(":")
    if name == "inception":
        return inception_extractor(rest or None)
    if spec.endswith(".npz"):
        return classifier_features(load_classifier(pathlib.Path(spec)))
    if spec.endswith(".jaxexport"):
        return _exported(pathlib.Path(spec))
    if all(part.isidentifier() for part in (*name.split("."), *rest.split("."))):
        return _imported(name, rest)
    raise ConfigError(f"--features or evaluation.features: {spec!r} is not known; allowed: {_ALLOWED}")


def _exported(path: pathlib.Path) -> Extractor:
    from jax import export

    try:
        function = export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # flatbuffers checks nothing: depending on the bytes, anything may be raised
        raise ConfigError(f"features {path} cannot be read as a serialised jax.export function: {error}") from None
    return Extractor(f"jax.export:{path.name}", lambda pixels: np.asarray(function.call(pixels)))


def _imported(module: str, function: str) -> Extractor:
    try:
        found = operator.attrgetter(function)(importlib.import_module(module))
    except Exception as error:  # importing runs the user's code
        raise ConfigError(f"features {module}:{function} cannot be imported: {error}") from None
    if not callable(found):
        raise ConfigError(f"features {module}:{function} are not a function of images")
    return Extractor(f"{module}:{function}", found)
