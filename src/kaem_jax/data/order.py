"""The order in which a run visits its data."""

import functools

import numpy as np

__all__ = ["batch_indices"]


def batch_indices(step: int, *, size: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of `size` examples batch `step` holds: int32 [batch_size].

    The order is a function of the step alone, so a resumed run sees what the uninterrupted one would have seen, on any
    number of hosts. Each epoch is a fresh permutation; a batch may span two epochs.
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size)
    epochs = positions // size
    indices = np.empty(batch_size, np.int32)
    for epoch in range(epochs[0], epochs[-1] + 1):
        inside = epochs == epoch
        indices[inside] = _permutation(size, seed, epoch)[positions[inside] % size]
    return indices


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)
