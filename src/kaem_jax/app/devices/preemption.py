"""Turns SIGTERM and Ctrl-C into a flag that the training loop polls."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Stopped(BaseException):
    """Ends a block; `except Exception` does not catch it."""


class StopRequest:
    """A context manager in which the first SIGTERM or SIGINT only sets `signal_name`; a second one acts as usual.

    In a job of several processes it does nothing: there jax listens, so that all processes stop at the same step.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._ends_block = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._restore()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this context manager a signal ends the block, between two compiled programs."""
        self._ends_block = True
        try:
            yield
        except _Stopped:
            pass
        finally:
            self._ends_block = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore()
        if self._ends_block:
            raise _Stopped

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
