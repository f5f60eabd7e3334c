"""Settings of the whole suite: fake devices, no silent dtype promotion, float64 truth where a test asks."""

import contextlib
import gc
import os
import shutil
import tempfile

import jax
import jaxlib.version
import numpy as np
import pytest

# Interrupted runs and resumed ones, in this process and in others, compile the same programs: one cache for a session.
_CACHE = os.environ.get("KAEM_JAX_TEST_CACHE") or tempfile.mkdtemp(prefix="kaem_jax_tests_")
_OWNS_CACHE = "KAEM_JAX_TEST_CACHE" not in os.environ  # workers and subprocesses inherit it from the first process
os.environ |= {
    "KAEM_JAX_TEST_CACHE": _CACHE,
    "JAX_COMPILATION_CACHE_DIR": _CACHE,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    # Nearly all time of this suite is compilation: LLVM's costly passes change no result that is tested here.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
# One thread for each worker: splitting programs for the compiler's own threads costs more than it gains.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
if jaxlib.version.__version_info__ < (0, 11):  # twice as fast to compile; newer releases have no choice of emitters
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
gc.set_threshold(200_000, 50, 100)  # tracing makes many objects: looking through all of them took an eighth of the time

_KEPT = 8  # of a sweep's cases, `make test` runs the first of each so many


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Of a test with the mark `sweep`, all cases but a few are slow."""
    seen: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("sweep"):
            name = item.nodeid.partition("[")[0]
            if seen.setdefault(name, 0) % _KEPT:
                item.add_marker("slow")
            seen[name] += 1


def pytest_unconfigure():
    if _OWNS_CACHE:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs of one file are of no use to the next, and each holds memory maps, of which Linux allows a
    process 65,530: a worker that kept them all would abort in the compiler."""
    yield
    jax.clear_caches()


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
