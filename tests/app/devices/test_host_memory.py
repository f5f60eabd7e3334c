"""Freed memory goes back to the system."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from kaem_jax.app.devices.host_memory import keep_freed_memory, return_freed_memory


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps freed memory")
def test_freed_memory_is_kept_until_it_is_returned():
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    num_traced = 0

    @jax.jit
    def traced(x):
        nonlocal num_traced
        num_traced += 1
        return x

    traced(0)
    pieces = [np.full(100_000, 1, np.uint8) for _ in range(1000)]
    del pieces[:-1]  # the last one lies above the others, which the system would get back on its own
    before = resident_bytes()
    return_freed_memory()
    assert before - resident_bytes() > 80e6
    traced(0)
    assert num_traced == 2
