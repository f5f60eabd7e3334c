"""Reports errors that a user can correct: one sentence on standard error, and an exit code."""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import absl.logging

from kaem_jax import errors
from kaem_jax.app.devices.preemption import handled_by
from kaem_jax.errors import EXIT_REFUSED, ConfigError, DataError, DivergedError, RunError

EXIT_DIVERGED = 3  # the same command would diverge again
EXIT_DISK = 74  # EX_IOERR: a disk is full; what was saved before is kept
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: nothing is lost, run the same command again


def in_one_sentence(command: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Decorates a command so that an error a user can correct becomes one sentence and an exit code."""

    @functools.wraps(command)
    def main(argv: Sequence[str]) -> int:
        # Orbax logs every rename, and prints tracebacks of errors that it also raises.
        absl.logging.set_verbosity(absl.logging.FATAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        # After a damaged file, orbax drops its other reads, each of which would print a traceback.
        before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        try:
            with handled_by(_interrupt):
                return command(argv)
        except KeyboardInterrupt:
            # With `python -m`, an interrupt during `exec` of a string, as in dataclasses, ends the process by SIGINT
            # despite the exit code, unless Python executes another string afterwards.
            exec("")
            print("interrupted; the same command starts again, or continues from its checkpoint", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            described = _describe(error)
            if described is None:
                raise
            code, sentence = described
            print(" ".join(f"error: {sentence}".split()), file=sys.stderr)
            return code
        finally:
            sys.unraisablehook = before

    return main


def _describe(error: Exception) -> tuple[int, str] | None:
    if isinstance(error, ConfigError | RunError | DataError):
        return EXIT_REFUSED, str(error)
    if isinstance(error, DivergedError):
        return EXIT_DIVERGED, str(error)
    full = next((cause for cause in errors.causes_of(error) if errors.is_disk_full(cause)), None)
    if full is not None:
        return EXIT_DISK, f"no space left: {_reason(full)}; earlier checkpoints are kept, so make room and run it again"
    if errors.is_out_of_memory(error):
        return (
            EXIT_REFUSED,
            f"out of memory ({_reason(error)}); in training lower data.batch_size, elsewhere give fewer data",
        )
    if errors.is_transient(error):
        return EXIT_INTERRUPTED, f"{_reason(error)}; this may pass, so run the same command again"
    if isinstance(error, OSError):
        return EXIT_REFUSED, _reason(error)
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return errors.first_line(error)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays SIGTERM and Ctrl-C to the end of the block: a library that is interrupted while it loads may crash."""
    received: list[int] = []
    with handled_by(lambda number, frame: received.append(number)):
        yield
    if received:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: object) -> NoReturn:
    """Until training installs its own handlers, SIGTERM acts as Ctrl-C does."""
    raise KeyboardInterrupt
