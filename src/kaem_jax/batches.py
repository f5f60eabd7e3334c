"""Cuts data into batches of one size, so that one compiled program serves all of them."""

from collections.abc import Iterator

import numpy as np

__all__ = ["filled_batches"]


def filled_batches(num: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of each batch, int [size], and how many of them count: the last is filled up with the first rows."""
    for first in range(0, num, size):
        yield np.arange(first, first + size) % num, min(size, num - first)
