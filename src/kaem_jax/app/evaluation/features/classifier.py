"""The default features, which need no download: the last hidden layer of a small classifier of the training data."""

import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util
from jax import Array

from kaem_jax.app.data import Dataset, to_pixels
from kaem_jax.app.evaluation.features import Extractor
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.files.writing import write_npz

_NUM_FEATURES = 64
_CHANNELS = (32, 64, 128, 128)
_NUM_UPDATES, _BATCH = 1000, 128


class Classifier(NamedTuple):
    """Trained parameters, and `facts` that explain a distance: source, shape, classes, held-out accuracy."""

    params: dict[str, Any]
    facts: dict[str, Any]


class _Network(nnx.Module):
    """Up to four strided convolutions, fewer once a side is 4 pixels; a hidden layer, the features; logits."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int, rngs: nnx.Rngs):
        height, width, channels = shape
        self.num_layers = 0
        for i, wide in enumerate(_CHANNELS):
            if i == 0 or min(height, width) > 4:
                setattr(self, f"conv_{i}", nnx.Conv(channels, wide, (4, 4), strides=2, rngs=rngs))
                channels, height, width = wide, -(-height // 2), -(-width // 2)
                self.num_layers += 1
        self.hidden = nnx.Linear(height * width * channels, _NUM_FEATURES, rngs=rngs)
        self.logits = nnx.Linear(_NUM_FEATURES, num_classes, rngs=rngs)

    def features(self, pixels: Array) -> Array:
        x = pixels.astype(jnp.float32) / 127.5 - 1
        for i in range(self.num_layers):
            x = jax.nn.gelu(getattr(self, f"conv_{i}")(x))
        return jax.nn.gelu(self.hidden(x.reshape(len(x), -1)))


def _network(facts: dict[str, Any], params: Any) -> _Network:
    def build() -> _Network:
        return _Network(tuple(facts["shape"]), facts["num_classes"], nnx.Rngs(0))

    return nnx.merge(nnx.graphdef(nnx.eval_shape(build)), params)


def _logits(facts: dict[str, Any], params: Any, pixels: Array) -> Array:
    network = _network(facts, params)
    return network.logits(network.features(pixels))


def train_classifier(source: str, dataset: Dataset) -> Classifier:
    """Trains the network on labelled images by 1,000 updates of Adam, on one machine always with the same result."""
    labels_of: Any = dataset.train_labels
    test_labels_of: Any = dataset.held_out_labels
    rows, test_rows = np.arange(len(dataset.train)), np.arange(len(dataset.held_out))
    train, labels = to_pixels(dataset.train[rows]), labels_of(rows)
    test, test_labels = to_pixels(dataset.held_out[test_rows]), test_labels_of(test_rows)
    num_classes = int(max(labels.max(), test_labels.max())) + 1
    facts: dict[str, Any] = {"source": source, "shape": train.shape[1:], "num_classes": num_classes}
    start = _Network(facts["shape"], facts["num_classes"], nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(start, nnx.Param))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, _NUM_UPDATES))

    def loss(params: Any, pixels: Array, labels: Array) -> Array:
        logits = _logits(facts, params, pixels)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    # No scan over updates: XLA's convolutions on CPUs are several times slower inside loops
    # (docs/decisions/convolutions.md).
    @jax.jit
    def update(state: Any, pixels: Array, labels: Array) -> Any:
        params, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(loss)(params, pixels, labels), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(0)
    state = params, optimizer.init(params)
    for _ in range(_NUM_UPDATES):
        rows = rng.integers(0, len(train), _BATCH)
        state = update(state, train[rows], labels[rows].astype(np.int32))
    classifier = Classifier(jax.device_get(state[0]), facts)
    accuracy = float(np.mean(classify(classifier, test) == test_labels))
    return classifier._replace(facts=facts | {"held_out_accuracy": round(accuracy, 4)})


def classify(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """The most probable class of each uint8 image [N, H, W, C]: int [N]."""
    logits = jax.jit(functools.partial(_logits, classifier.facts))
    return Extractor("logits", functools.partial(logits, classifier.params))(pixels).argmax(axis=1)


def save_classifier(path: pathlib.Path, classifier: Classifier) -> None:
    """Writes one .npz file: every array under its path, and the facts as JSON."""
    flat = traverse_util.flatten_dict(classifier.params, sep="/")
    write_npz(path, flat | {"facts": np.array(json.dumps(classifier.facts))})


def load_classifier(path: pathlib.Path) -> Classifier:
    """Reads what `save_classifier` wrote."""
    try:
        with path.open("rb") as file, np.load(file) as archive:
            flat = {name: archive[name] for name in archive.files}
        facts = json.loads(str(flat.pop("facts")))
    except Exception as error:  # a damaged archive raises many types
        raise ConfigError(f"features: {path} cannot be read as a saved classifier ({first_line(error)})") from None
    return Classifier(traverse_util.unflatten_dict(flat, sep="/"), facts)


def classifier_features(classifier: Classifier) -> Extractor:
    """The last hidden layer; the name has the classifier's accuracy and a digest of its parameters."""
    facts = classifier.facts
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(classifier.params))).hexdigest()[:12]
    shape = tuple(facts["shape"])

    @jax.jit
    def hidden(params: Any, pixels: Array) -> Array:
        return _network(facts, params).features(pixels)

    def features(pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1:] != shape:
            raise ConfigError(
                f"features: the classifier of {facts['source']} takes images of shape {shape}, not {pixels.shape[1:]}"
            )
        return np.asarray(hidden(classifier.params, pixels))

    name = f"classifier of {facts['source']} (accuracy {facts['held_out_accuracy']:.1%}, {digest}), not Inception"
    return Extractor(name, features)
