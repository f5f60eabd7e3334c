"""Cuts data into batches of one size, so that one compiled program serves all of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def filled_batches(num: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of each batch, int [size], and how many count: the last batch is filled up with the first rows."""
    for first in range(0, num, size):
        yield np.arange(first, first + size) % num, min(size, num - first)


def in_batches(function: Callable[[Array, Array], Any], key: Array, x: Any, size: int) -> Iterator[Any]:
    """Yields `function(key, batch)` for each batch of x [N, ...], as NumPy arrays with data along axis 0.

    Each batch has its own key. Results of data that fill up the last batch are dropped.
    """
    for i, (rows, count) in enumerate(filled_batches(len(x), size)):
        found = jax.device_get(function(jax.random.fold_in(key, i), jnp.asarray(x[rows])))
        yield jax.tree.map(lambda leaf, count=count: leaf[:count], found)
