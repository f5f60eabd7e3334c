"""Settings of the whole suite: fake devices, no silent dtype promotion, float64 truth where a test asks."""

import contextlib

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Runs the test with 64-bit types: the library is dtype-generic, so this is its own truth."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    return np.random.default_rng(20251125)


@pytest.fixture
def refuses():
    """`with refuses(Error, "part", ...)`: the block raises Error and its one-line message holds every part."""

    @contextlib.contextmanager
    def check(error, *parts):
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"

    return check
