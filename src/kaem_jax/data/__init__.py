"""Data sets, where they come from, and the order in which a run visits them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kaem_jax.data.columns import Table
from kaem_jax.data.dataset import (
    Dataset,
    Examples,
    Opened,
    Parts,
    Source,
    are_pictures,
    as_seen,
    is_image,
    refuse_bytes_of_bits,
    to_pixels,
    to_unit_interval,
)
from kaem_jax.data.feed import Batch, Feed
from kaem_jax.data.field import open_field
from kaem_jax.data.folder import Layout, load_folder
from kaem_jax.data.form import PIXELS, Field, Form, Pixels, Text, form_from_dict
from kaem_jax.data.given import fit_of, read_given, read_mask, read_table_of
from kaem_jax.data.npz import load_npz
from kaem_jax.data.order import batch_indices
from kaem_jax.data.prepared import open_prepared
from kaem_jax.data.settings import SHIPPED_TABLES, TABLES, TEXTS, DataSettings
from kaem_jax.data.table import check_writable, open_table, read_table, write_table
from kaem_jax.data.text import open_texts
from kaem_jax.devices.processes import say
from kaem_jax.errors import DataError

__all__ = [
    "PIXELS",
    "Batch",
    "Dataset",
    "Feed",
    "Field",
    "Form",
    "Pixels",
    "Source",
    "Table",
    "Text",
    "are_pictures",
    "as_seen",
    "batch_indices",
    "check_writable",
    "fit_of",
    "form_from_dict",
    "is_image",
    "judged_rows",
    "load_dataset",
    "read_given",
    "read_mask",
    "read_table",
    "read_table_of",
    "refuse_bytes_of_bits",
    "to_pixels",
    "to_unit_interval",
    "write_table",
]

_DIGITS_TEST_SIZE = 360
_CELEB_A_SIZE = 64


def load_dataset(settings: DataSettings, lazy: bool = False) -> Dataset:
    """Loads or opens the data set that `settings` describes.

    `digits`: 1,797 real 8x8 handwritten digits (UCI optical recognition), shipped inside scikit-learn; pixels 0..16
    are divided by 16, and `train_test_split(test_size=360, random_state=0)` fixes the split. `field`, `folder`,
    `npz`, `sms_spam`, `table` and `text` are the user's own data at `data.path`. `wine` and `breast_cancer` ship inside
    scikit-learn, the toys (`kaem_jax.data.toys`) are drawn here, and the names in `kaem_jax.data.settings.PREPARED`
    are prepared by tensorflow_datasets under `data.dir`.

    With `held_out="validation"` the last `validation_size` examples of a fixed permutation of the training split are
    held out instead of the test split, which stays unseen: settings can be chosen on them. A folder of texts may have a
    file of them, of which the first `validation_size` are held out.

    Args:
      settings: which data, and how much of them.
      lazy: whether prepared training images stay on disk until they are asked for, whatever `settings.storage` says.

    Raises:
      DataError: the data are missing or cannot be read.
    """
    opened = _open(settings)
    size = opened.num_train
    rows = _training_rows(settings, size, opened.has_validation)
    train, test, form, validation = opened.learn(rows)
    if train.values.shape[1:] != test.values.shape[1:]:
        raise DataError(
            f"data.path={settings.path!r} holds training data of shape {train.values.shape[1:]} and test data of shape "
            f"{test.values.shape[1:]}; they must have one shape"
        )
    if settings.held_out == "validation" and validation is not None:
        if settings.validation_size > len(validation.values):
            say(
                f"data.validation_size={settings.validation_size}, and the validation file under data.path="
                f"{settings.path!r} holds {len(validation.values)}: all of them are held out"
            )
        judging = validation.take(np.arange(min(len(validation.values), settings.validation_size)))
    elif settings.held_out == "validation":
        judging = train.take(_without_and_in_validation(settings, size)[1])
    else:
        judging = test
    is_read = isinstance(train.values, np.ndarray)
    stays = not is_read and (lazy or settings.storage == "disk")
    if len(rows) < size or not (is_read or stays):
        train = train.take(rows, lazy=stays)
    held_out = judging.take(judged_rows(settings, len(judging.values)))
    assert isinstance(held_out.values, np.ndarray)
    return Dataset(train.values, held_out.values, train.labels, held_out.labels, form)


def some_rows(settings: DataSettings, size: int, num: int) -> np.ndarray:
    """Indices of `num` of `size` rows; 0 means all.

    The first ones, except for tables and users' own data, which may be sorted by class: there they are chosen at
    random, the same every time.
    """
    if (settings.path or settings.name in SHIPPED_TABLES) and 0 < num < size:
        return np.random.default_rng(0).permutation(size)[:num]
    return np.arange(min(num or size, size))


def judged_rows(settings: DataSettings, size: int) -> np.ndarray:
    """Of `size` held-out rows the indices of those that judge training, `data.num_held_out` of them."""
    return some_rows(settings, size, settings.num_held_out)


def _training_rows(settings: DataSettings, size: int, has_validation: bool) -> np.ndarray:
    """Of `size` training rows those that are trained on, in their order."""
    rows = np.arange(size)
    if settings.held_out == "validation" and not has_validation:
        rows = _without_and_in_validation(settings, size)[0]
    return np.sort(rows[some_rows(settings, len(rows), settings.num_train)]) if settings.num_train else rows


def _without_and_in_validation(settings: DataSettings, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A training split's rows without, and its rows in, the validation split."""
    if settings.validation_size >= size:
        raise DataError(
            f"data.validation_size={settings.validation_size} must be below {size}, the size of the training "
            f"split of data.name={settings.name!r}"
        )
    order = np.random.default_rng(0).permutation(size)
    return np.sort(order[: -settings.validation_size]), np.sort(order[-settings.validation_size :])


def _open(settings: DataSettings) -> Opened:
    cut: Any = {"test_fraction": settings.test_fraction, "seed": settings.split_seed}
    if settings.name in TABLES:
        read: Any = {"columns": settings.columns, "label": settings.label, "transform": settings.transform}
        return open_table(settings.name, settings.path, **read, **cut)
    if settings.name == "field":
        return open_field(settings.path, columns=settings.columns, **cut)
    if settings.name in TEXTS:
        return open_texts(settings.name, settings.path, level=settings.level, length=settings.length, **cut)
    images = _load_images(settings, cut)
    return Opened(len(images.train.values), lambda _: images)  # of images nothing is learned


def _load_images(settings: DataSettings, cut: Mapping[str, Any]) -> Parts:
    if settings.name == "digits":
        return _load_digits()
    if settings.name == "npz":
        return load_npz(settings.path, **cut)
    if settings.name == "folder":
        layout = Layout(settings.image_size, settings.fit, settings.channels)
        return load_folder(settings.path, layout=layout, **cut)
    return open_prepared(settings.name, settings.dir, size=settings.image_size or _CELEB_A_SIZE)


def _load_digits() -> Parts:
    from sklearn.datasets import load_digits  # scikit-learn takes most of a second to import: only where it is used
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    train, test, *labels = train_test_split(images, digits.target, test_size=_DIGITS_TEST_SIZE, random_state=0)
    return Parts(Examples(train, labels[0].__getitem__), Examples(test, labels[1].__getitem__))
