"""Batches: the order of the data, and the same examples whether all data lie on the devices or not."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kaem_jax.app.data import Feed, to_pixels
from kaem_jax.app.data.feed import stays_on_devices
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.training.batch import batch_indices, to_unit_interval


@settings(max_examples=30)
@given(size=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9))
def test_every_epoch_visits_every_example_once(size, batch_size, seed):
    """Batches straddle epochs where they do not divide."""
    order = {"size": size, "batch_size": batch_size, "seed": seed}
    stream = np.concatenate([batch_indices(step, **order) for step in range(-(-3 * size // batch_size))])[: 3 * size]
    epochs = stream.reshape(3, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(size), epochs.shape))
    assert stream.dtype == np.int32
    if size > 10:  # equal by chance in one of 11! pairs
        others = [*epochs, batch_indices(0, size=size, batch_size=size, seed=seed + 10)]
        assert len({tuple(epoch) for epoch in others}) == 4


def test_all_data_or_just_the_batches_are_the_same_batches(rng):
    images = rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    mesh, labels = make_mesh(Parallel(data=4), 8, 1), rng.integers(0, 10, 50)
    order = {"batch_size": 8, "seed": 3, "labels": labels.__getitem__}
    resident, streamed = (Feed(images, kept, mesh, **order) for kept in ("device", "host"))
    for step in range(0, 8, 2):
        indices = np.stack([batch_indices(step + i, size=50, batch_size=8, seed=3) for i in range(2)])
        whole, sent = resident(step, 2), streamed(step, 2)
        assert whole.stored.shape == (50, 16)
        assert (sent.rows, sent.stored.dtype) == (None, jnp.uint8)
        for batch in (whole, sent):
            assert batch.num_updates == 2
            np.testing.assert_array_equal(batch.indices, indices)
            for k in range(2):
                np.testing.assert_allclose(batch.data(k), images[indices[k]] / np.float32(255), rtol=1e-6)
                np.testing.assert_array_equal(batch.labels(k), labels[indices[k]])
        # Each device holds its part of every batch and no more.
        assert {shard.data.shape for shard in sent.stored.addressable_shards} == {(2, 2, 16)}
    assert resident(0).stored is whole.stored  # sent once


def test_of_several_processes_each_reads_a_share_of_what_all_hold(rng, monkeypatch):
    """Here one process has all eight devices: every row is read once, whether or not devices divide their number."""
    mesh, read = make_mesh(Parallel(data=4, temp=2), 8, 2), []

    class Rows(np.ndarray):
        def __getitem__(self, rows):
            read.extend(np.arange(len(self))[rows].tolist())
            return np.asarray(self)[rows]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for size in (3, 16, 50):
        images = rng.integers(0, 256, (size, 4, 4, 1), dtype=np.uint8)
        stored = Feed(images.view(Rows), "device", mesh, batch_size=8, seed=3)(0).stored
        np.testing.assert_array_equal(stored, images.reshape(size, 16))
        assert stored.sharding.is_fully_replicated
        assert sorted(read) == list(range(size))
        read.clear()


def test_where_data_stay():
    """Data on disk would fill the memory of every device."""
    for storage, small, large in (("auto", True, False), ("device", True, True), ("host", False, False)):
        assert [stays_on_devices(storage, size) for size in (2 * 2**30, 2 * 2**30 + 1)] == [small, large]
    assert not stays_on_devices("disk", 1)


def test_pixels_to_the_unit_interval_and_back():
    x = to_unit_interval(jnp.asarray([0, 51, 255], jnp.uint8))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, [0, 0.2, 1])
    floats = jnp.asarray([0.25])
    assert to_unit_interval(floats) is floats
    shown = to_pixels(np.array([[[-0.2, 0.0, 0.5, 1.0, 1.3]]]))  # a byte that overflows would exchange black and white
    assert (shown.dtype, shown.ravel().tolist()) == (np.uint8, [0, 0, 128, 255, 255])


def test_the_bytes_of_the_data_decide_where_they_are():
    """2.3 GB of floats, here one number with many places, are sent batch by batch."""
    many = np.broadcast_to(np.float32(0.5), (9_000_000, 64))
    batch = Feed(many, "auto", make_mesh(Parallel(data=1), 8, 1), batch_size=8, seed=0)(0, 1)
    assert (batch.rows, batch.stored.shape) == (None, (1, 8, 64))
