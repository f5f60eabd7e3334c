"""Settings of data: which set, where it is, and which rows of it are trained on or held out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from kaem_jax.app.data.toys import TOYS
from kaem_jax.errors import DataError
from kaem_jax.settings import Settings, setting

TEXTS = ("sms_spam", "text")
OWN_FILES = ("field", "folder", "npz", "table", *TEXTS)
PREPARED = ("celeb_a", "cifar10", "fashion_mnist", "mnist", "svhn_cropped")
SHIPPED_TABLES = ("breast_cancer", "wine", *TOYS)
TABLES = ("table", *SHIPPED_TABLES)
_SPLIT_HERE = (*OWN_FILES, *SHIPPED_TABLES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """The data set, where it is, which part of it is used, and the size of a minibatch.

    Attributes:
      name: a set that needs no download or is prepared by tensorflow_datasets, or a kind of your own files.
      path: path of your own files.
      dir: where tensorflow_datasets prepared data; empty: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      image_size: side length of the squares to which images are scaled; 0: unchanged, but 64 for celeb_a.
      fit: how `image_size` makes images square: cropped at the longer side, or padded with black at the shorter one.
      channels: channels of images in a folder; `auto` takes those of the first image.
      storage: of training data. `device`: all in device memory; `host`: decoded in host memory; `disk`: prepared images
        are decoded batch by batch. `auto` is `device` up to 2 GiB, else `host`.
      held_out: the split that is held out.
      validation_size: number of examples held out instead of the test split, from the validation part of the data or
        else from the training split.
      test_fraction: share of the data that becomes the test part, for data without one.
      split_seed: seed of that split.
      columns: columns of a table to model (empty: all but the label), or arrays of fields that become channels.
      label: a column of classes, which is not modelled.
      transform: `standard` standardises columns of numbers; `power` also makes them more symmetric by powers.
      level: whether a token of a text is a character or a word.
      length: tokens of a text; longer texts are cut.
      num_train: number of examples to train on, 0: all; a random choice from tables and your own data, else the first.
      num_held_out: the same for held-out data.
      batch_size: number of examples in a minibatch.
      transpose: swap height and width of each training image or field with probability 1/2.
      labels: tie the clusters of a clustered prior to the classes of the data.
    """

    name: Literal[
        "breast_cancer", "celeb_a", "checkerboard", "cifar10", "digits", "eight_gaussians", "fashion_mnist", "field",
        "folder", "mnist", "moons", "npz", "rings", "sms_spam", "svhn_cropped", "table", "text", "wine"
    ] = "digits"  # fmt: skip
    path: str = setting("", needs={"name": OWN_FILES})
    dir: str = setting("", needs={"name": PREPARED})
    image_size: int = setting(0, low=0, high=4096, needs={"name": ("celeb_a", "folder")})
    fit: Literal["crop", "pad"] = setting("crop", needs={"name": ("folder",)})
    channels: Literal["auto", "grey", "rgb"] = setting("auto", needs={"name": ("folder",)})
    storage: Literal["auto", "device", "disk", "host"] = "auto"
    held_out: Literal["test", "validation"] = "test"
    validation_size: int = setting(0, low=0)
    test_fraction: float = setting(0.1, above=0, high=0.9, needs={"name": _SPLIT_HERE})
    split_seed: int = setting(0, low=0, needs={"name": _SPLIT_HERE})
    columns: tuple[str, ...] = setting((), needs={"name": ("field", "table", *SHIPPED_TABLES)})
    label: str = setting("", needs={"name": ("table",)})
    transform: Literal["power", "standard"] = setting("standard", needs={"name": TABLES})
    level: Literal["character", "word"] = setting("character", needs={"name": TEXTS})
    length: int = setting(160, low=2, high=65536, needs={"name": TEXTS})
    num_train: int = setting(0, low=0)
    num_held_out: int = setting(0, low=0)
    batch_size: int = setting(128, low=1)
    transpose: bool = False
    labels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.columns)) < len(self.columns) or self.label in self.columns:
            raise ValueError(f"columns={self.columns} must name each column once, and not data.label={self.label!r}")
        if self.name in OWN_FILES and not self.path:
            raise ValueError(f"path={self.path!r} must be set for data.name={self.name!r}")
        if (self.held_out == "validation") != (self.validation_size > 0):
            raise ValueError(
                f"held_out={self.held_out!r} contradicts data.validation_size={self.validation_size}: a validation "
                "split needs a size above 0, and the test split needs 0"
            )


def parts_of(sizes: Sequence[int], settings: DataSettings) -> dict[str, np.ndarray]:
    """The rows of the training and test part, given both sizes, or one size, which is split at random."""
    if len(sizes) == 2:
        return {"train": np.arange(sizes[0]), "test": np.arange(sizes[0], sum(sizes))}
    (size,) = sizes
    if size < 2:
        raise DataError(f"data.path={settings.path!r} has {size} examples; a training and a test part need at least 2")
    order = np.random.default_rng(settings.split_seed).permutation(size)
    num_test = min(max(1, round(settings.test_fraction * size)), size - 1)
    return {"train": np.sort(order[num_test:]), "test": np.sort(order[:num_test])}


def chosen_rows(settings: DataSettings, parts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are trained on, and those that are held out.

    For `held_out="validation"` these are the first rows of the part `validation`. Without such a part, they are the
    last rows of a fixed permutation of the part `train`, and are not trained on.
    """
    train, held_out = parts["train"], parts["test"]
    if settings.held_out == "validation" and "validation" in parts:
        held_out = parts["validation"][: settings.validation_size]
    elif settings.held_out == "validation":
        if settings.validation_size >= len(train):
            raise DataError(
                f"data.validation_size={settings.validation_size} must be below {len(train)}, the size of the training "
                f"split of data.name={settings.name!r}"
            )
        order = np.random.default_rng(0).permutation(len(train))
        held_out = train[np.sort(order[-settings.validation_size :])]
        train = train[np.sort(order[: -settings.validation_size])]
    chosen = np.sort(some_rows(settings, len(train), settings.num_train))
    return train[chosen], held_out[evaluated_rows(settings, len(held_out))]


def some_rows(settings: DataSettings, size: int, num: int) -> np.ndarray:
    """Indices of `num` of `size` rows; 0 means all.

    Tables and users' own data may be sorted by class, so they give fixed random rows; other data their first ones.
    """
    if (settings.path or settings.name in SHIPPED_TABLES) and 0 < num < size:
        return np.random.default_rng(0).permutation(size)[:num]
    return np.arange(min(num or size, size))


def evaluated_rows(settings: DataSettings, size: int) -> np.ndarray:
    """Indices of the `data.num_held_out` rows, out of `size` held-out rows, on which training is evaluated."""
    return some_rows(settings, size, settings.num_held_out)
