"""Errors that a user can correct, and why a library failed."""

import errno

__all__ = [
    "EXIT_REFUSED",
    "ConfigError",
    "DataError",
    "DivergedError",
    "RunError",
    "causes_of",
    "first_line",
    "is_disk_full",
    "is_out_of_memory",
    "is_transient",
]  # fmt: skip

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
# What libraries of checkpoints and data bases pass on of it, as text.
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
# Of a file system over a network, or of a process that is missing for minutes.
_PASSING = (errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)
_PASSING_IN_WORDS = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type where it says nothing."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine or a device has too little memory; XLA says it in words, writers of a full disk the same."""
    is_said = str(error).startswith("RESOURCE_EXHAUSTED")
    return isinstance(error, MemoryError) or (is_said and not is_disk_full(error))


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, or what a user may take of it, is full."""
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
    """The error, what it was raised from or during, and so on."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found
