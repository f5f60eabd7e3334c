"""Batches on the device: the same examples whether all data lie there or not."""

import jax.numpy as jnp
import numpy as np

from kaem_jax.data import Feed, batch_indices, to_unit_interval
from kaem_jax.data.feed import stays_on_devices
from kaem_jax.devices.mesh import make_mesh
from kaem_jax.devices.mesh import Parallel


def test_all_data_or_just_the_batches_are_the_same_batches(rng):
    images = rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    mesh = make_mesh(ParallelConfig(data=4), 8, 1)
    order = {"batch_size": 8, "seed": 3, "steps_per_call": 2}
    labels = rng.integers(0, 10, 50)
    resident, streamed = (Feed(images, kept, mesh, labels=labels.__getitem__, **order) for kept in ("device", "host"))
    for step in range(0, 8, 2):
        indices = np.stack([batch_indices(step + i, size=50, batch_size=8, seed=3) for i in range(2)])
        whole, sent = resident(step), streamed(step)
        assert whole.stored.shape == (50, 16)
        assert sent.rows is None
        assert sent.stored.dtype == jnp.uint8
        assert whole.num_updates == sent.num_updates == 2
        for batch in (whole, sent):
            np.testing.assert_array_equal(batch.indices, indices)
            for k in range(2):
                np.testing.assert_allclose(batch.data(k), images[indices[k]] / np.float32(255), rtol=1e-6)
                np.testing.assert_array_equal(batch.labels(k), labels[indices[k]])
        # Each device holds its part of every batch and no more.
        assert {shard.data.shape for shard in sent.stored.addressable_shards} == {(2, 2, 16)}
    assert resident(0).stored is whole.stored  # sent once


def test_auto_keeps_small_data_on_the_device(monkeypatch):
    images = np.zeros((50, 4), np.uint8)
    mesh = make_mesh(ParallelConfig(data=1), 2, 1)
    assert Feed(images, "auto", mesh, batch_size=2, seed=0)(0).stored.shape == (50, 4)
    monkeypatch.setattr("kaem_jax.data.feed._MAX_RESIDENT_BYTES", 199)
    assert Feed(images, "auto", mesh, batch_size=2, seed=0)(0).stored.shape == (1, 2, 4)


def test_where_data_stay():
    """Data on disk would fill the memory of every device."""
    stays = {storage: stays_on_devices(storage, 1) for storage in ("auto", "device", "disk", "host")}
    assert stays == {"auto": True, "device": True, "disk": False, "host": False}


def test_scaling_to_the_unit_interval():
    x = to_unit_interval(jnp.asarray([0, 51, 255], jnp.uint8))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, [0, 0.2, 1])
    floats = jnp.asarray([0.25])
    assert to_unit_interval(floats) is floats
