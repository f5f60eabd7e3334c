"""Joins the processes of a job, and lets them communicate. All code runs with one process, too."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kaem_jax.errors import ConfigError


def is_writer() -> bool:
    """Whether this process writes files and prints messages; exactly one process does."""
    return jax.process_index() == 0


def say(message: str) -> None:
    """Prints one line, from one process, on standard error: standard output stays free for results."""
    if is_writer():
        print(message, file=sys.stderr, flush=True)


def barrier(name: str) -> None:
    """Returns when every process has reached this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_writer(value: Any) -> Any:
    """The writer's `value`, a number or a pytree of arrays, on every process."""
    if jax.process_count() == 1:
        return value
    return multihost_utils.broadcast_one_to_all(value)


def check_same_on_all_processes(values: Mapping[str, int]) -> None:
    """Waits for every process, and checks that all gave the same values.

    Args:
      values: integers from 0 to 2^32 - 1, by descriptions such as "the configuration".

    Raises:
      ConfigError: a value differs between processes; every process raises it.
    """
    if jax.process_count() == 1:
        return
    found = multihost_utils.process_allgather(np.array(list(values.values()), np.uint32))
    for name, column in zip(values, np.asarray(found).T, strict=True):
        if len(set(column.tolist())) > 1:
            raise ConfigError(
                f"{name} is not the same in all {len(column)} processes: {', '.join(map(str, column))}; all need the "
                "same flags, files and --workdir"
            )
