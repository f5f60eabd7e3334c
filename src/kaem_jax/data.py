"""Data sets and the order in which a run visits them."""

from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "batch_indices", "load_dataset"]

_DIGITS_TEST_SIZE = 360


class Dataset(NamedTuple):
    """Arrays on the host.

    Attributes:
      train: float32 [N, *data_shape], values in [0, 1].
      test: float32 [N', *data_shape], never trained on.
    """

    train: np.ndarray
    test: np.ndarray


def load_dataset(name: str) -> Dataset:
    """Loads the data set `name`.

    `digits`: 1,797 real 8x8 handwritten digits (UCI optical recognition), shipped inside scikit-learn; pixels 0..16
    are divided by 16, and `train_test_split(test_size=360, random_state=0)` fixes the split.

    Raises:
      ValueError: `name` is unknown.
    """
    if name != "digits":
        raise ValueError(f"data.name={name!r} is not known; allowed: digits")
    from sklearn.datasets import load_digits  # scikit-learn takes most of a second to import: only where it is used
    from sklearn.model_selection import train_test_split

    images = (load_digits().images / 16).astype(np.float32)
    return Dataset(*train_test_split(images, test_size=_DIGITS_TEST_SIZE, random_state=0))


def batch_indices(step: int, *, size: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of `size` examples batch `step` holds: int32 [batch_size].

    The order is a function of the step alone, so a resumed run sees what the uninterrupted one would have seen, on any
    number of hosts. Each epoch is a fresh permutation; a batch may straddle two.
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size)
    epochs = positions // size
    order = {epoch: np.random.default_rng((seed, epoch)).permutation(size) for epoch in np.unique(epochs).tolist()}
    return np.array([order[e][p % size] for e, p in zip(epochs.tolist(), positions, strict=True)], dtype=np.int32)
