"""Keeps compiled programs on disk for the next start of the same run."""

import os
import pathlib
import platform
import zlib

import jax

_MAX_BYTES = 2 * 2**30  # older programs are deleted
_MIN_SECONDS = 0.3  # of compilation; below, reading a file is not worth it
_OFF = ("", "0", "off")


def use_compilation_cache() -> pathlib.Path | None:
    """Turns the cache on (docs/train.md) and returns its folder, or None; call it before anything compiles."""
    in_use: str | None = jax.config.values["jax_compilation_cache_dir"]
    if in_use:
        return pathlib.Path(in_use)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = os.environ.get("KAEM_JAX_CACHE", f"{home}/kaem_jax")
    if chosen in _OFF:
        return None
    try:
        path = programs_folder(pathlib.Path(chosen).expanduser())
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no such home
        return None
    if not os.access(path, os.W_OK):  # a home that cannot be written to is no reason not to train
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    return path


def programs_folder(cache: pathlib.Path) -> pathlib.Path:
    """The folder in `cache` for this processor's instruction set: programs with other instructions would crash."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return cache / f"programs-{zlib.crc32(f'{platform.machine()} {flags}'.encode()):08x}"
