"""Gives memory that compilation has freed back to the operating system."""

import ctypes
import functools
import sys
from typing import Any

import jax

_MIN_SECONDS = 0.3  # a shorter compilation leaves little


@functools.cache
def trim_after_compilation() -> None:
    """Trims the heap after each long compilation: glibc would keep what is freed, 260 MiB in a run of digits.

    Does nothing with other C libraries.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def after(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration") and duration_secs > _MIN_SECONDS:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)
