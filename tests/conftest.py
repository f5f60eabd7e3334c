"""Settings of the whole suite: fake devices, no silent dtype promotion, float64 truth where a test asks."""

import contextlib
import gc
import os
import pathlib
import shutil
import time

import hypothesis
import jax
import jaxlib.version
import numpy as np
import pytest

from kaem_jax.app.devices.compilation_cache import programs_folder

# Much of the time of this suite is compilation, so programs are kept for all workers and for the next session; those
# of subprocesses, which may be killed, in a cache of the package. `pytest --cache-clear` deletes both.
_KEPT = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "d"
_PROGRAMS = programs_folder(_KEPT)
_MAX_BYTES = 2**30
if "PYTEST_XDIST_WORKER" not in os.environ and sum(file.stat().st_size for file in _PROGRAMS.glob("*")) > _MAX_BYTES:
    shutil.rmtree(_PROGRAMS, ignore_errors=True)
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",  # two workers share two cores, and threads of scikit-learn would wait for each other
    "KAEM_JAX_CACHE": str(_KEPT / "of_subprocesses"),
    # LLVM's costly passes change no result that is tested here.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
# One thread for each worker: splitting programs for the compiler's own threads costs more than it gains.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
if jaxlib.version.__version_info__ < (0, 11):  # twice as fast to compile; newer releases have no choice of emitters
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(_PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("steady")
gc.set_threshold(200_000, 50, 100)  # tracing makes many objects: looking through all of them took an eighth of the time


def pytest_addoption(parser):
    """`--start_until=T`: tests that would start later are skipped, so that a run with a time limit ends within it."""
    parser.addoption(
        "--start_until", type=float, metavar="SECONDS", help="skip tests that would start after this Unix time"
    )


def pytest_runtest_setup(item):
    """Skips what would start too late."""
    until = item.config.getoption("start_until")
    if until is not None and time.time() > until:
        pytest.skip("the time of this run is up; `make test-all` runs every test")


_EVERY = 16  # of a sweep's cases, `make test` runs the first of each so many


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Of a test with the mark `sweep`, all cases but a few are slow, and so is what is for releases."""
    seen: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("release"):
            item.add_marker("slow")
        if item.get_closest_marker("sweep"):
            name = item.nodeid.partition("[")[0]
            if seen.setdefault(name, 0) % _EVERY:
                item.add_marker("slow")
            seen[name] += 1


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
    """`with refuses(Error, "part", ...)`: the block raises Error and its one-line message holds every part.

    `refuses.each((call, parts), ...)`: so does each call, with a ValueError.
    """

    @contextlib.contextmanager
    def check(error, *parts):
        with pytest.raises(error) as caught:
            yield caught
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"

    def each(*cases):
        for call, parts in cases:
            with check(ValueError, *parts):
                call()

    check.each = each
    return check


@pytest.fixture
def as_users_run_it():
    """With the promotion of dtypes that optax's schedules need."""
    with jax.numpy_dtype_promotion("standard"):
        yield
