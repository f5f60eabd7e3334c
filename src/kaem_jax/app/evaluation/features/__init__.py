"""Feature extractors, which turn images into vectors before samples are compared."""

import dataclasses
import pathlib
import pkgutil
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Dataset, to_pixels
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.jax_utils.batches import filled_batches
from kaem_jax.jax_utils.processes import is_writer

_BATCH = 250
_ALLOWED = "classifier, random, inception[:WEIGHTS.pth], a classifier.npz of another run, or package.module:function"
_RANDOM_CHANNELS = (32, 64, 128)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A function from uint8 pixels [N, H, W, C], C 1 or 3, to features [N, F], which are reported under its `name`."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features of uint8 images [N, H, W, C], in batches of one size: float64 [N, F]."""
        parts = []
        for rows, count in filled_batches(len(pixels), _BATCH):
            try:
                features = np.asarray(self.function(pixels[rows]), np.float64)
            except Exception as error:  # the function is the user's
                raise ConfigError(
                    f"features {self.name} cannot be computed: {type(error).__name__}: {error}"
                ) from error
            if features.ndim != 2 or len(features) != _BATCH or not np.isfinite(features).all():
                raise ConfigError(
                    f"features {self.name} of {_BATCH} images have shape {features.shape} or are not finite; wanted: "
                    "finite [N, F]"
                )
            parts.append(features[:count])
        return np.concatenate(parts)


def make_extractor(spec: str, own: pathlib.Path, source: str, dataset: Dataset) -> Extractor:
    """The feature extractor called `spec`.

    docs/evaluate.md describes them; `own` is the file of the run's classifier, `source` the name of the data.

    Raises:
      ConfigError: the extractor is unknown, or does not suit the images.
    """
    extractor = _named(spec, own, source, dataset)
    extractor(to_pixels(dataset.held_out[:1]))  # what fails is refused before it is needed
    return extractor


def _named(spec: str, own: pathlib.Path, source: str, dataset: Dataset) -> Extractor:
    from kaem_jax.app.evaluation.features import classifier as classifiers  # which imports this module

    if spec == "classifier":
        if not own.exists():
            if not dataset.is_labelled:
                allowed = _ALLOWED.removeprefix("classifier, ")
                raise ConfigError(f"features 'classifier' need labelled images, these have none; allowed: {allowed}")
            classifier = classifiers.train_classifier(source, dataset)
            if is_writer():
                classifiers.save_classifier(own, classifier)
            return classifiers.classifier_features(classifier)
        spec = str(own)
    if spec == "random":
        return Extractor("random", lambda pixels: np.asarray(_random_features(pixels)))
    name, _, rest = spec.partition(":")
    if name == "inception":
        return _inception_extractor(rest or None)
    if spec.endswith(".npz"):
        return classifiers.classifier_features(classifiers.load_classifier(pathlib.Path(spec)))
    if all(part.isidentifier() for part in (*name.split("."), *rest.split("."))):
        try:
            return Extractor(spec, pkgutil.resolve_name(spec))
        except Exception as error:  # importing runs the user's code
            raise ConfigError(f"features {spec} cannot be imported: {error}") from None
    raise ConfigError(f"--features or evaluation.features: {spec!r} is not known; allowed: {_ALLOWED}")


@jax.jit
def _random_features(pixels: Array) -> Array:
    """Means over the image of the activations of three random layers, [N, 224]; fewer for sides below 13 pixels."""
    x = pixels.astype(jnp.float32) / 127.5 - 1
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))  # grey images have three equal channels
    means = []
    for key, channels in zip(jax.random.split(jax.random.key(0), len(_RANDOM_CHANNELS)), _RANDOM_CHANNELS, strict=True):
        kernel = jax.nn.initializers.he_normal()(key, (4, 4, x.shape[-1], channels))
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x)
        means.append(jnp.mean(x, axis=(1, 2)))
        if min(x.shape[1:3]) < 4:
            break
    return jnp.concatenate(means, axis=-1)


def _inception_extractor(weights: str | None) -> Extractor:
    """The 2,048 pooled features of the network of the original TensorFlow FID; grey images are repeated to RGB."""
    try:
        import torch
        from torch_fidelity import feature_extractor_inceptionv3 as fidelity
    except ImportError as error:
        raise ConfigError(
            f"features inception need torch-fidelity ({error}): pip install -e '.[inception]' in the clone"
        ) from None
    try:
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights, verbose=False
        )
    except Exception as error:  # from urllib, torch or pickle, depending on what went wrong
        where = f"read from {weights}" if weights else f"downloaded from {fidelity.URL_INCEPTION_V3}"
        raise ConfigError(
            f"features inception: the weights cannot be {where} ({first_line(error)}); fetch that address "
            "where there is a network and give the file as inception:FILE"
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    def features(pixels: np.ndarray) -> np.ndarray:
        rgb = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
        with torch.no_grad():
            (pooled,) = network(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).to(device))
        return pooled.cpu().numpy()

    return Extractor("inception-v3-compat:2048 (torch-fidelity)", features)
