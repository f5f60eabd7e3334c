"""Memory that is free returns to the operating system after a long compilation."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from kaem_jax.app.cli import kaem
from kaem_jax.app.devices.memory import trim_after_compilation

NUM, SIZE = 3200, 64 * 1024  # blocks that malloc takes from its heap


def resident_mib():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and malloc_trim are of Linux")
def test_the_heap_is_trimmed_after_long_compilations_only():
    trim_after_compilation()
    blocks = [np.ones(SIZE, np.uint8) for _ in range(NUM)]
    del blocks[:-1]  # the last one keeps the heap from shrinking by itself
    before = resident_mib()
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.record_event_duration_secs(event, 0.1)
    jax.monitoring.record_event_duration_secs("/jax/core/compile/other_duration", 1.0)
    assert resident_mib() > before - 10
    jax.monitoring.record_event_duration_secs(event, 1.0)
    assert resident_mib() < before - 0.7 * NUM * SIZE / 2**20


def test_every_command_trims(capsys):
    trim_after_compilation.cache_clear()
    with pytest.raises(SystemExit):
        kaem.main(["sample", "--help"])
    assert "usage" in capsys.readouterr().out
    assert trim_after_compilation.cache_info().currsize == 1
