"""Data sets prepared by tensorflow_datasets, read from ArrayRecord files without tensorflow."""

import io
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kaem_jax.data.dataset import Examples, Parts
from kaem_jax.data.folder import central_square
from kaem_jax.errors import DataError, first_line

__all__ = ["PreparedImages", "open_prepared"]

_NUM_THREADS = 8


def open_prepared(name: str, directory: str, *, size: int) -> Parts:
    """The train and test split of a prepared data set.

    Args:
      name: one of `kaem_jax.data.settings.PREPARED`.
      directory: the data directory of tensorflow_datasets; empty for TFDS_DATA_DIR, or ~/tensorflow_datasets.
      size: side length to which celeb_a's centre crops are scaled; other sets keep their own.

    Raises:
      DataError: it is not there, or prepared in a format that cannot be read by index.
    """
    import tensorflow_datasets as tfds  # takes half a second to import: only where it is used

    root = pathlib.Path(directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    where = "data.dir" if directory else "TFDS_DATA_DIR" if "TFDS_DATA_DIR" in os.environ else "the default directory"
    prepare = f"pip install tensorflow && tfds build {name} --data_dir={root} --file_format=array_record"
    versions = sorted(
        (info.parent for info in (root / name).glob("*/dataset_info.json")), key=lambda path: _version(path.name)
    )
    if not versions:
        raise DataError(f"data.name={name!r} is not prepared under {root} ({where}); prepare it with: {prepare}")
    try:
        builder = tfds.builder_from_directory(versions[-1])
        decoders = {"image": tfds.decode.SkipDecoding()}
        train, test = (builder.as_data_source(split=split, decoders=decoders) for split in ("train", "test"))
    except Exception as error:  # NotImplementedError for files without an index, many types for damaged ones
        raise DataError(
            f"data.name={name!r} under {versions[-1]} cannot be read by index "
            f"({first_line(error)}); prepare it again with: {prepare}"
        ) from None
    shape = (size, size, 3) if name == "celeb_a" else tuple(builder.info.features["image"].shape)

    def examples(source: Sequence[dict[str, Any]]) -> Examples:
        images = PreparedImages(source, shape, name == "celeb_a")
        return Examples(images, images.labels if "label" in builder.info.features else None)

    return Parts(examples(train), examples(test))


class PreparedImages:
    """Images that are decoded when they are asked for, by a few threads.

    `source` is a data source of tfds, whose `__getitems__` reads many records at once; its annotation does not say so.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Any, shape: tuple[int, ...], crop: bool):
        self._source = source
        self._data_shape = shape
        self._crop = crop
        self._pool = ThreadPoolExecutor(_NUM_THREADS)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._data_shape)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(self._decode, self._records(indices)))).reshape(-1, *self._data_shape)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """The classes of the examples at `indices` [B]: int32 [B]."""
        return np.array([record["label"] for record in self._records(indices)], np.int32)

    def _records(self, indices: np.ndarray) -> Sequence[dict[str, Any]]:
        try:
            return self._source.__getitems__([int(i) for i in indices])
        except RuntimeError as error:  # the only type that array_record raises
            raise DataError(f"data.dir: prepared data cannot be read ({error}); prepare them again") from None

    def _decode(self, record: dict[str, Any]) -> np.ndarray:
        from PIL import Image

        with Image.open(io.BytesIO(record["image"])) as file:
            image: Image.Image = file.convert("L" if self._data_shape[-1] == 1 else "RGB")
        if self._crop:
            height, width, _ = self._data_shape
            image = central_square(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in name.split("."))
