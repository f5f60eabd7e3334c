"""Errors about runs, their folders and files. Wrong settings raise `ConfigError`, wrong data `DataError`."""

__all__ = ["DivergedError", "RunError", "TransientReadError"]


class RunError(Exception):
    """The folder of a run, or a file of a model, that cannot be used; the message says which, why and what to do."""


class TransientReadError(OSError):
    """A checkpoint could not be read for a reason outside it, such as a file system that does not answer.

    It may be intact; the message says which one, and why.
    """


class DivergedError(FloatingPointError):
    """A metric is not finite; the message says which, at which step, and what was kept."""
