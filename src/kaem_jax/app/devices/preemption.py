"""Turns SIGTERM and Ctrl-C into a flag that the training loop polls."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def handled_by(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Inside this context manager SIGTERM and Ctrl-C call the handler."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class _Stopped(BaseException):
    """Ends a block; `except Exception` does not catch it."""


class StopRequest:
    """A context manager in which the first SIGTERM or SIGINT only sets `signal_name`; a second one acts as usual.

    In a job of several processes it does nothing: there jax listens, so that all processes stop at the same step.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._ends_block = False
        self._handled = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        import jax  # not before signals are handled: this module also serves the start of a command

        if jax.process_count() == 1:
            self._handled.enter_context(handled_by(self._handle))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handled.close()

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

    def _handle(self, number: int, frame: object) -> None:
        self.signal_name = signal.Signals(number).name
        self._handled.close()
        if self._ends_block:
            raise _Stopped
