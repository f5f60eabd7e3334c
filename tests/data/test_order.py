"""Data sets and the order of batches."""

import numpy as np
import pytest

from kaem_jax.data import batch_indices, load_dataset
from kaem_jax.data.settings import DataSettings


def test_digits_are_real_and_the_split_is_fixed():
    data = load_dataset(DataSettings())
    assert data.train.shape == (1437, 8, 8)
    assert data.held_out.shape == (360, 8, 8)
    assert data.train.dtype == np.float32
    assert data.train.min() == 0
    assert data.train.max() == 1
    again = load_dataset(DataSettings())
    np.testing.assert_array_equal(data.held_out, again.held_out)
    # No held-out image is in the training split.
    train = {image.tobytes() for image in data.train}
    assert sum(image.tobytes() in train for image in data.held_out) == 0


@pytest.mark.parametrize("batch_size", [7, 10, 23])
def test_every_epoch_visits_every_example_once(batch_size):
    """Batches straddle epochs where they do not divide; the order is a function of the step alone."""
    size = 23
    steps = 5 * size
    stream = np.concatenate([batch_indices(step, size=size, batch_size=batch_size, seed=3) for step in range(steps)])
    epochs = stream[: len(stream) // size * size].reshape(-1, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(size), epochs.shape))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    other = batch_indices(0, size=size, batch_size=batch_size, seed=4)
    assert not np.array_equal(other, stream[:batch_size])
