"""Reports errors that a user can correct: one sentence on standard error, and an exit code."""

import sys
from collections.abc import Callable

from kaem_jax.config import EXIT_REFUSED, ConfigError

__all__ = ["in_one_sentence"]


def in_one_sentence(command: Callable[[], int]) -> int:
    """Runs `command`; returns its exit code, or `EXIT_REFUSED` if it refuses something."""
    from kaem_jax.checkpoint import CheckpointError
    from kaem_jax.data import DataError

    try:
        return command()
    except (ConfigError, CheckpointError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
