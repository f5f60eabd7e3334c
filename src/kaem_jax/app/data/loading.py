"""Loads or opens the data set of a run."""

import contextlib
import importlib.util
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from kaem_jax.app.data.arrays import open_fields, open_images
from kaem_jax.app.data.config import PREPARED, TABLES, TEXTS, DataSettings, chosen_rows
from kaem_jax.app.data.dataset import Dataset, Labels
from kaem_jax.app.data.feed import stays_on_devices
from kaem_jax.app.data.folder import open_folder
from kaem_jax.app.data.forms import PIXELS
from kaem_jax.app.data.prepared import PreparedImages, open_prepared
from kaem_jax.app.data.table import open_table
from kaem_jax.app.data.texts import open_texts
from kaem_jax.errors import DataError, first_line


def load_dataset(settings: DataSettings, lazy: bool = False) -> Dataset:
    """Loads or opens a data set; raises a DataError if it is missing or cannot be read.

    Scales, categories and tokens are fitted to the training rows only. With `lazy`, prepared images stay on disk.
    """
    place = "dir" if settings.name in PREPARED else "path"
    with reading(f"data.{place}", getattr(settings, place)):
        parts, labels, learn = _READERS[settings.name](settings)
        rows, held_out = chosen_rows(settings, parts)
        values, form = learn(rows)
        # With several processes, each decodes its share; see `Feed`.
        is_shared = jax.process_count() > 1 and stays_on_devices(
            settings.storage, len(rows) * math.prod(values.shape[1:])
        )
        stays = isinstance(values, PreparedImages) and (lazy or is_shared or settings.storage == "disk")
        train = values.take(rows) if stays else values[rows]
        return Dataset(train, values[held_out], _labels_of(labels, rows), _labels_of(labels, held_out), form)


@contextlib.contextmanager
def reading(flag: str, path: str) -> Iterator[None]:
    """Turns any error raised while the file of `flag` is read into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # each reader raises types of its own for damaged files
        raise DataError(f"{flag}={path!r} cannot be read: {first_line(error)}") from None


def _labels_of(labels: Any, rows: np.ndarray) -> Labels | None:
    """Labels of some rows, read on access; None if there are none, or if any in an array is negative (unknown)."""
    if isinstance(labels, np.ndarray):
        return None if (labels[rows] < 0).any() else labels[rows].__getitem__
    return labels and (lambda indices: labels(rows[indices]))


def _open_digits(settings: DataSettings) -> Any:
    """1,797 real 8x8 handwritten digits (UCI optical recognition) of scikit-learn, scaled from 0..16 to 0..1."""
    package: Any = importlib.util.find_spec("sklearn")  # importing it takes a fifth of the time to the first step
    digits = np.loadtxt(pathlib.Path(package.origin).parent / "datasets/data/digits.csv.gz", np.float32, delimiter=",")
    images, labels = digits[:, :-1].reshape(-1, 8, 8) / 16, digits[:, -1].astype(int)
    test, train = np.split(np.random.RandomState(0).permutation(len(images)), [360])
    return {"train": train, "test": test}, labels, lambda _: (images, PIXELS)


_READERS = {"digits": _open_digits, "npz": open_images, "folder": open_folder, "field": open_fields}
for _names, _reader in ((TABLES, open_table), (TEXTS, open_texts), (PREPARED, open_prepared)):
    _READERS |= dict.fromkeys(_names, _reader)
