"""What this package raises of runs, their folders and files; settings have `ConfigError`, and data `DataError`."""

__all__ = ["DivergedError", "RunError", "UnreadableNowError"]


class RunError(Exception):
    """The folder of a run, or a file of a model, that cannot be used; the message says which, why and what to do."""


class UnreadableNowError(OSError):
    """A checkpoint that could not be read, and may be whole; the message says which and why."""


class DivergedError(FloatingPointError):
    """A metric is not finite; the message says which, at which step, and what was kept."""
