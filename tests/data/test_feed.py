"""Batches on the device: the same examples whether all data lie there or not."""

import jax.numpy as jnp
import numpy as np

from kaem_jax.config import ParallelConfig
from kaem_jax.data import Feed, batch_indices, to_unit_interval
from kaem_jax.parallel import make_mesh


def test_all_data_or_just_the_batches_are_the_same_batches(rng):
    images = rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    mesh = make_mesh(ParallelConfig(data=4), 8, 1)
    resident, streamed = Feed(images, "device", mesh), Feed(images, "host", mesh)
    for step in range(4):
        indices = np.stack([batch_indices(2 * step + i, size=50, batch_size=8, seed=0) for i in range(2)])
        data, rows = resident(indices)
        assert data.shape == (50, 4, 4, 1)
        batch, no_rows = streamed(indices)
        assert no_rows is None
        assert batch.dtype == jnp.uint8
        np.testing.assert_array_equal(data[rows], images[indices])
        np.testing.assert_array_equal(batch, images[indices])
        # Each device holds its part of every batch and no more.
        assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 2, 4, 4, 1)}
    assert resident(indices)[0] is data  # sent once


def test_auto_keeps_small_data_on_the_device(monkeypatch):
    images = np.zeros((50, 4), np.uint8)
    mesh = make_mesh(ParallelConfig(data=1), 2, 1)
    assert Feed(images, "auto", mesh)(np.zeros((1, 2), np.int32))[0].shape == (50, 4)
    monkeypatch.setattr("kaem_jax.data.feed._MAX_RESIDENT_BYTES", 199)
    assert Feed(images, "auto", mesh)(np.zeros((1, 2), np.int32))[0].shape == (1, 2, 4)


def test_scaling_to_the_unit_interval():
    x = to_unit_interval(jnp.asarray([0, 51, 255], jnp.uint8))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, [0, 0.2, 1])
    floats = jnp.asarray([0.25])
    assert to_unit_interval(floats) is floats
