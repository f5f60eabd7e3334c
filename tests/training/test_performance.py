"""Rates of a run, and the cache of compiled programs."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.devices.chips import Chip
from kaem_jax.devices.compilation_cache import programs_folder, use_compilation_cache
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


@pytest.mark.parametrize(
    ("given", "environment", "place"),
    [
        ("mine", {}, "mine"),
        (None, {"KAEM_JAX_CACHE": "mine"}, "mine"),
        (None, {"XDG_CACHE_HOME": "mine"}, "mine/kaem_jax"),
        ("off", {"KAEM_JAX_CACHE": "mine"}, None),
        ("/proc/none", {}, None),
        ("~nosuchuser/x", {}, None),  # nobody has such a home
    ],
)
def test_programs_are_kept_where_a_user_says(tmp_path, monkeypatch, given, environment, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAEM_JAX_CACHE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "compilation_cache_max_size")
    before = {f"jax_{name}": jax.config.values[f"jax_{name}"] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        found = use_compilation_cache(given)
        in_use = jax.config.values["jax_compilation_cache_dir"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert in_use == (found and str(found))
    assert (found and found.parent) == (place and pathlib.Path(place))


def test_processors_of_other_instructions_share_no_programs(tmp_path, monkeypatch):
    def folder(flags):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda _: f"processor: 0\nflags: {flags}\n")
        return programs_folder(tmp_path)

    assert folder("sse avx") == folder("sse avx") != folder("sse avx avx512f")
