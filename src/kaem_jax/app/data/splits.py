"""Which data are trained on, and which are held out."""

from collections.abc import Mapping, Sequence

import numpy as np

from kaem_jax.app.data.config import SHIPPED_TABLES, DataSettings
from kaem_jax.errors import DataError


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
