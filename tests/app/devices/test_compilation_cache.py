"""The cache of compiled programs."""

import pathlib

import jax
import pytest

from kaem_jax.app.devices.compilation_cache import programs_folder, use_compilation_cache


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"KAEM_JAX_CACHE": "mine", "XDG_CACHE_HOME": "other"}, "mine"),
        ({"XDG_CACHE_HOME": "mine"}, "mine/kaem_jax"),
        ({"KAEM_JAX_CACHE": "off", "XDG_CACHE_HOME": "mine"}, None),
        ({"KAEM_JAX_CACHE": "/proc/none"}, None),
        ({"KAEM_JAX_CACHE": "~nosuchuser/x"}, None),  # nobody has such a home
    ],
)
def test_programs_are_kept_where_a_user_says(tmp_path, monkeypatch, environment, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAEM_JAX_CACHE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "compilation_cache_max_size")
    before = {f"jax_{name}": jax.config.values[f"jax_{name}"] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        found = use_compilation_cache()
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
