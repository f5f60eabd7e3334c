"""Keeps freed host memory in the process, so that a step on a CPU does not map its buffers anew."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Tells glibc not to map buffers below 128 MiB, and to keep up to 256 MiB that are free; elsewhere does nothing.

    By default it maps and unmaps buffers above 32 MiB, and each step writes to fresh pages (docs/decisions/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 2**27) and mallopt(_TRIM_THRESHOLD, 2**28))
