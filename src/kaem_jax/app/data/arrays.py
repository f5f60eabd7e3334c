"""Users' own images and continuous fields in .npz files.

Each `open_` function of this folder returns the rows of each part of the data, their labels, and a function that fits
the form (scales, categories, tokens) to given training rows and returns all data encoded, and the form.
"""

import pathlib
from typing import Any

import numpy as np

from kaem_jax.app.data.config import DataSettings, parts_of
from kaem_jax.app.data.forms import PIXELS, Field
from kaem_jax.training.batch import refuse_bytes_of_bits

FIELDS = ("fields", "y", "x", "data", "images")


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with pathlib.Path(path).expanduser().open("rb") as opened:
        if opened.read(2) != b"PK":
            raise ValueError("it is no .npz file: save arrays by np.savez('FILE.npz', images=array)")
        opened.seek(0)
        archive = np.load(opened)
        return dict(archive)


def open_images(settings: DataSettings) -> Any:
    """Opens arrays `train` and `test`, or one array `images`, which is split.

    Arrays are [N, *data_shape], uint8, floats in [0, 1], or bool, classes integers [N] in `train_labels` and
    `test_labels`, or in `labels`.
    """
    arrays = read_arrays(settings.path)
    of_labels = {"train": "train_labels", "test": "test_labels"} if "train" in arrays else {"images": "labels"}
    if not of_labels.keys() <= arrays.keys():
        raise ValueError(f"it holds arrays {list(arrays)}; wanted: train and test, or images")
    found = [arrays[name] for name in of_labels]
    for images in found:
        refuse_bytes_of_bits(f"data.path={settings.path!r}", images)
        if images.dtype.kind == "f" and (num := np.isnan(images).sum()):
            raise ValueError(f"it holds {num:,} NaN, and images to train on have no gaps")
        if images.dtype != np.uint8 and not (images.dtype.kind in "bf" and images.min() >= 0 and images.max() <= 1):
            wanted = "uint8, floats in [0, 1], or bool; data.name=field takes numbers of any range"
            raise ValueError(f"it holds {images.dtype} values from {images.min()} to {images.max()}; wanted: {wanted}")
    if any(images.dtype != np.uint8 for images in found):
        found = [(x / np.float32(255) if x.dtype == np.uint8 else x).astype(np.float32) for x in found]
    labels = [arrays.get(of_labels[name], np.full(len(arrays[name]), -1)) for name in of_labels]
    if any(a.dtype.kind not in "ui" or a.shape != (len(b),) for a, b in zip(labels, found, strict=True)):
        raise ValueError(f"{' and '.join(of_labels.values())} must be integers, one for each image")
    values, sizes = np.concatenate(found), [len(part) for part in found]
    return parts_of(sizes, settings), np.concatenate(labels).astype(int), lambda _: (values, PIXELS)


def open_fields(settings: DataSettings) -> Any:
    """Opens the arrays `data.columns` as channels, or `train` and `test`, or the first of `FIELDS`.

    Arrays are [N, H, W], [N, H, W, C] or [N, D], finite numbers of any range or booleans.
    """
    arrays = read_arrays(settings.path)
    is_split = not settings.columns and {"train", "test"} <= arrays.keys()
    names = ("train", "test") if is_split else settings.columns or [name for name in FIELDS if name in arrays][:1]
    if not names or not set(names) <= arrays.keys():
        wanted = ", ".join(settings.columns) or f"train and test, or one of {', '.join(FIELDS)}"
        raise ValueError(f"it holds arrays {list(arrays)}; wanted: {wanted} (data.columns)")
    found = [with_channels(arrays[name]) for name in names]
    if any(x.ndim not in (2, 4) or x.dtype.kind not in "uif" or not np.isfinite(x).all() for x in found):
        raise ValueError(f"{' or '.join(names)} does not hold finite numbers [N, H, W], [N, H, W, C] or [N, D]")
    fields = np.concatenate(found, axis=0 if is_split else -1)

    def learn(rows: np.ndarray) -> tuple[np.ndarray, Field]:
        form = Field.of(fields[rows])
        return form.encode(fields), form

    return parts_of([len(part) for part in found] if is_split else [len(fields)], settings), None, learn


def with_channels(values: np.ndarray) -> np.ndarray:
    """Adds an axis of one channel to fields [N, H, W]; converts booleans to float32."""
    values = values.astype(np.float32) if values.dtype == bool else values
    return values[..., None] if values.ndim == 3 else values
