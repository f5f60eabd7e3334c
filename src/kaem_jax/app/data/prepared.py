"""Data sets prepared by tensorflow_datasets, read from ArrayRecord files without tensorflow."""

import io
import os
import pathlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from kaem_jax.app.data.config import DataSettings, parts_of
from kaem_jax.app.data.folder import central_square
from kaem_jax.app.data.forms import PIXELS
from kaem_jax.errors import DataError, first_line

_NUM_THREADS = 8
_CELEB_A_SIZE = 64


class PreparedImages:
    """The images [H, W, C] at `rows` of a tfds data source, decoded on access; `crop` cuts out the centre."""

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Any, shape: tuple[int, ...], crop: bool, rows: np.ndarray):
        self._source, self._crop, self._rows = source, crop, rows
        self._pool = ThreadPoolExecutor(_NUM_THREADS)
        self.shape = (len(rows), *shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Decodes the images at `indices` [B]: uint8 [B, H, W, C]."""
        decoded = list(self._pool.map(self._decode, self._records(indices)))
        return np.stack(decoded).reshape(-1, *self.shape[1:])

    def take(self, indices: np.ndarray) -> "PreparedImages":
        return PreparedImages(self._source, self.shape[1:], self._crop, self._rows[indices])

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return np.array([record["label"] for record in self._records(indices)], np.int32)

    def _records(self, indices: np.ndarray) -> Sequence[dict[str, Any]]:
        return self._source.__getitems__(self._rows[indices].tolist())

    def _decode(self, record: dict[str, Any]) -> np.ndarray:
        _, height, width, channels = self.shape
        with Image.open(io.BytesIO(record["image"])) as file:
            image: Image.Image = file.convert("L" if channels == 1 else "RGB")
        if self._crop:
            image = central_square(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8)


def open_prepared(settings: DataSettings) -> Any:
    """Opens images on disk; `arrays` describes the result."""
    import tensorflow_datasets as tfds  # takes half a second to import: only where it is used

    name, is_portrait = settings.name, settings.name == "celeb_a"
    root = pathlib.Path(settings.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    try:
        versions = [info.parent for info in root.glob(f"{name}/*/dataset_info.json")]
        found = {tuple(map(int, re.findall(r"\d+", version.name))): version for version in versions}
        builder = tfds.builder_from_directory(found[max(found)] if found else root / name)
        source = builder.as_data_source(split="train+test", decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # NotImplementedError for files without an index, many types for damaged ones
        raise DataError(
            f"data.name={name!r} cannot be read by index under {root} ({first_line(error)}): set data.dir or "
            f"TFDS_DATA_DIR, or prepare it with: pip install tensorflow && tfds build {name} --data_dir={root} "
            "--file_format=array_record"
        ) from None
    size = settings.image_size or _CELEB_A_SIZE
    shape = (size, size, 3) if is_portrait else tuple(builder.info.features["image"].shape)
    images = PreparedImages(source, shape, is_portrait, np.arange(len(source)))
    sizes = [builder.info.splits[split].num_examples for split in ("train", "test")]
    labels = images.labels if "label" in builder.info.features else None
    return parts_of(sizes, settings), labels, lambda _: (images, PIXELS)
