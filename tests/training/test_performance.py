"""Rates of a run, and the cache of compiled programs."""

import os
import pathlib
import subprocess
import sys
import types

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.devices.chips import Chip
from kaem_jax.devices.compilation_cache import _delete_unfinished, programs_folder, use_compilation_cache
from kaem_jax.training import performance
from kaem_jax.training.performance import Performance, Profiler


def test_rates_and_utilisation(monkeypatch):
    """Two calls of ten updates in four seconds, each update one product of 2 * 64^3 FLOPs, on a chip of 1 MFLOP/s."""
    chip = Chip(1e9, 1e6, None, "made up")
    monkeypatch.setattr(performance, "CHIPS", {jax.devices()[0].device_kind: chip})
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(performance.time, "perf_counter", lambda: next(clock))
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_in_use": 3 * 2**20})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])

    def ten_updates(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=10)[0]

    program = jax.jit(ten_updates).lower(jnp.eye(64)).compile()
    row = Performance(step=50, batch_size=32, program=program, updates=10).row(70)
    assert row["perf/steps_per_second"] == 5
    assert row["perf/examples_per_second"] == 160
    np.testing.assert_allclose(row["perf/model_flops_utilisation"], 5 * 2 * 64**3 / 1e6)
    assert row["perf/device_memory_mib"] == 3


@pytest.mark.parametrize(("per_call", "profiled"), [(1, [10, 11, 12]), (2, [10, 12])])
def test_a_profile_is_of_as_many_steps_as_asked_for(tmp_path, monkeypatch, per_call, profiled):
    """After ten steps that warm up, and once."""
    seen, is_on = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda _: is_on.append(True))
    monkeypatch.setattr(jax.profiler, "stop_trace", is_on.clear)
    with Profiler(tmp_path, 3, 0) as profiler:
        for step in range(0, 40, per_call):
            profiler.before(step)
            seen += [step] if is_on else []
            profiler.after(step + per_call, None)
    assert seen == profiled


def test_a_run_that_ends_before_its_profile_says_so(tmp_path, capsys):
    with Profiler(tmp_path, 3, 5) as profiler:
        profiler.before(14)
    assert "no profile: the run ended before step 15" in capsys.readouterr().err
    with Profiler(tmp_path, 0, 5):
        pass
    assert not capsys.readouterr().err


def test_an_unknown_chip_has_no_utilisation(monkeypatch):
    program = jax.jit(lambda x: x @ x).lower(jnp.eye(4)).compile()
    assert "perf/model_flops_utilisation" not in Performance(0, 1, program, 1).row(1)
    # Nor has a known one whose backend does not show programs.
    monkeypatch.setattr(performance, "CHIPS", {jax.devices()[0].device_kind: Chip(1e9, 1e6, None, "made up")})
    silent = types.SimpleNamespace(as_text=lambda: None)
    assert "perf/model_flops_utilisation" not in Performance(0, 1, silent, 1).row(1)


PROGRAM = """
import sys
from kaem_jax.devices.compilation_cache import use_compilation_cache
found = use_compilation_cache(*sys.argv[1:])
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sort(x) @ x)(jnp.ones((3, 3)))
print(found)
"""


@pytest.mark.parametrize("by", ["option", "variable", "home", "off", "nowhere"])
def test_programs_are_kept_where_a_user_says(tmp_path, by):
    names = ("JAX_COMPILATION_CACHE_DIR", "KAEM_JAX_CACHE", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in names}
    target = tmp_path / "kaem_jax" if by == "home" else tmp_path
    env |= {"variable": {"KAEM_JAX_CACHE": str(target)}, "home": {"XDG_CACHE_HOME": str(tmp_path)}}.get(by, {})
    arguments = {"option": [str(target)], "off": ["off"], "nowhere": ["/proc/none"]}.get(by, [])
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    if by in ("off", "nowhere"):
        assert process.stdout == "None\n"
        assert not list(tmp_path.rglob("*"))
    else:
        assert process.stdout.startswith(str(target / "programs-"))
        assert list(target.rglob("*-cache"))


def test_there_is_no_cache_in_a_home_that_nobody_has():
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert use_compilation_cache("~nosuchuser/x") is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("error", [NotImplementedError, OSError, filelock.Timeout])
def test_a_cache_that_cannot_be_locked_stops_nothing(error, tmp_path, monkeypatch):
    """On homes without locks, of which older versions of filelock say that nothing is implemented."""

    def refuses_to_lock(*_, **__):
        raise error("of the lock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuses_to_lock)
    (tmp_path / "a-cache").write_text("kept")
    _delete_unfinished(tmp_path)
    assert (tmp_path / "a-cache").exists()


def test_processors_of_other_instructions_share_no_programs(tmp_path, monkeypatch):
    def folder(flags):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: f"processor: 0\nflags: {flags}\n")
        return programs_folder(tmp_path)

    assert folder("sse avx") == folder("sse avx") != folder("sse avx avx512f")


def test_a_program_whose_writing_was_cut_off_is_written_again(tmp_path):
    """Without a word: JAX alone would warn of it at each start."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}

    def run():
        command = [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM, str(tmp_path)]
        subprocess.run(command, env=env, check=True)
        return {path: path.stat() for path in tmp_path.rglob("*-cache")}

    whole = run()
    path = min(whole)
    path.write_bytes(path.read_bytes()[:50])
    path.with_name(path.name.removesuffix("-cache") + "-atime").unlink()
    again = run()
    assert again.keys() == whole.keys()
    assert again[path].st_size > 1000
    assert {path: file.st_mtime_ns for path, file in run().items()} == {
        p: file.st_mtime_ns for p, file in again.items()
    }
