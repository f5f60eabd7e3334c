"""Freed memory of the host: kept in the process for the next step, or returned to the system between tasks."""

import ctypes
import sys
from typing import Any

import jax

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Tells glibc not to map buffers below 128 MiB, and to keep up to 256 MiB that are free; elsewhere does nothing.

    By default it maps and unmaps buffers above 32 MiB, and each step writes to fresh pages (docs/decisions/speed.md).
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, 2**27) and mallopt(_TRIM_THRESHOLD, 2**28))


def return_freed_memory() -> None:
    """Drops compiled programs, and has glibc return what it keeps: a third of the memory after a long evaluation."""
    jax.clear_caches()
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
