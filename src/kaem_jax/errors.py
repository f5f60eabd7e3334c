"""Errors that a user can correct, and functions that say why a library failed."""

import errno

EXIT_REFUSED = 2  # exit code of every command for flags, configurations, data and folders that it refuses


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, what was given and what is allowed."""


class DataError(ValueError):
    """Data that are missing or cannot be read; the message says where the program looked and how to get them."""


class RunError(Exception):
    """The folder of a run, or a file of a model, that cannot be used; the message says which, why and what to do."""


class DivergedError(FloatingPointError):
    """A metric is not finite; the message says which, at which step, and what was kept."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of checkpoint and database libraries on a full disk.
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
# Errors of a network file system, or of a process that does not answer for minutes.
_PASSING = (errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)
_PASSING_IN_WORDS = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the host or a device is full. XLA has one message for this and for a full disk."""
    is_said = str(error).startswith("RESOURCE_EXHAUSTED")
    return isinstance(error, MemoryError) or (is_said and not is_disk_full(error))


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk or the user's quota on it is full."""
    return (isinstance(error, OSError) and error.errno in _FULL) or any(say in str(error) for say in _FULL_IN_WORDS)


def is_transient(error: BaseException) -> bool:
    """Whether something failed for a passing reason, such as a timeout, so that another try may succeed."""
    return not any(map(is_out_of_memory, causes_of(error))) and any(
        isinstance(cause, TimeoutError)
        or (isinstance(cause, OSError) and cause.errno in _PASSING)
        or str(cause).startswith(_PASSING_IN_WORDS)
        for cause in causes_of(error)
    )


def causes_of(error: BaseException) -> list[BaseException]:
    """The error and its chain of causes: the errors that each was raised from, or while handling."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found
