"""Batches of one size with keys of their own, and a signal that is noted once."""

import os
import signal

import jax
import numpy as np

from kaem_jax.app.devices.preemption import StopRequest
from kaem_jax.jax_utils.batches import in_batches


def test_each_batch_has_its_own_key_and_the_last_is_filled_up():
    shapes = []

    def function(key, x):
        shapes.append(x.shape)
        return x, jax.random.uniform(key, (len(x),))

    key, x = jax.random.key(0), np.arange(10.0, dtype=np.float32).reshape(5, 2)
    values, draws = (np.concatenate(parts) for parts in zip(*in_batches(function, key, x, 2), strict=True))
    assert shapes == [(2, 2)] * 3
    np.testing.assert_array_equal(values, x)
    own = [jax.random.uniform(jax.random.fold_in(key, i), (2,)) for i in range(3)]
    np.testing.assert_array_equal(draws, np.concatenate(own)[:5])


def test_a_second_signal_acts_as_usual():
    """In the first place a handler of our own."""
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append("usual"))
    try:
        with StopRequest() as stop:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.signal_name, got) == ("SIGTERM", ["usual"])
        with StopRequest() as stop:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal_name, got) == (None, ["usual"] * 2)
    finally:
        signal.signal(signal.SIGTERM, before)
