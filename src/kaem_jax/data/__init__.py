"""Data sets, where they come from, and the order in which a run visits them."""

import numpy as np

from kaem_jax.config import DataConfig
from kaem_jax.data.dataset import DataError, Dataset, Images, to_unit_interval
from kaem_jax.data.feed import Feed
from kaem_jax.data.files import load_folder, load_npz
from kaem_jax.data.order import batch_indices
from kaem_jax.data.prepared import PREPARED, open_prepared

__all__ = ["DATASETS", "DataError", "Dataset", "Feed", "Images", "batch_indices", "load_dataset", "to_unit_interval"]

DATASETS = ("digits", "folder", "npz", *PREPARED)
_DIGITS_TEST_SIZE = 360


def load_dataset(settings: DataConfig) -> Dataset:
    """Loads or opens the data set that `settings` describes.

    `digits`: 1,797 real 8x8 handwritten digits (UCI optical recognition), shipped inside scikit-learn; pixels 0..16
    are divided by 16, and `train_test_split(test_size=360, random_state=0)` fixes the split. `folder` and `npz` are
    the user's own, `data.path`; the rest is prepared by tensorflow_datasets under `data.dir`.

    With `held_out="validation"` the last `validation_size` examples of a fixed permutation of the training split are
    held out instead of the test split, which stays unseen: settings can be chosen on them.

    Raises:
      DataError: the data cannot be had or read.
    """
    train: Images
    test: Images
    if settings.name == "digits":
        train, test = _load_digits()
    elif settings.name == "npz":
        train, test = load_npz(settings.path, settings.test_fraction)
    elif settings.name == "folder":
        train, test = load_folder(settings.path, settings.test_fraction)
    else:
        train, test = open_prepared(settings.name, settings.dir, settings.image_size)
        if settings.storage != "disk":
            train = train[np.arange(len(train))]
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"data.path={settings.path!r} holds training data of shape {train.shape[1:]} and test data of shape "
            f"{test.shape[1:]}; they must have one shape"
        )
    if settings.held_out == "validation":
        order = np.random.default_rng(0).permutation(len(train))
        if settings.validation_size >= len(train):
            raise DataError(
                f"data.validation_size={settings.validation_size} must be below {len(train)}, the size of the training "
                f"split of data.name={settings.name!r}"
            )
        rest, test_indices = order[: -settings.validation_size], order[-settings.validation_size :]
        test, train = train[np.sort(test_indices)], train[np.sort(rest)]
    held_out = test[np.arange(min(len(test), settings.num_held_out or len(test)))]
    if settings.num_train:
        train = train[np.arange(min(len(train), settings.num_train))]
    return Dataset(train, held_out)


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # scikit-learn takes most of a second to import: only where it is used
    from sklearn.model_selection import train_test_split

    images = (load_digits().images / 16).astype(np.float32)
    train, test = train_test_split(images, test_size=_DIGITS_TEST_SIZE, random_state=0)
    return train, test
