"""Options that several commands share, and checks of output paths."""

import argparse
import importlib.util
import os
import pathlib
from collections.abc import Callable
from typing import Any

from kaem_jax.errors import ConfigError

_MOST = 2**32 - 1


def to_path(text: str) -> pathlib.Path:
    """The `type` of an option for a file or folder. Expands the ~ in --out=~/x, which no shell does."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no file and no folder")
    if "://" in text:  # as a path it would become a folder named gs: here
        raise argparse.ArgumentTypeError(f"{text} is an address; give a folder, in which a bucket may be mounted")
    return pathlib.Path(os.path.expanduser(text))  # leaves the ~ of users that nobody knows


def at_least(low: int) -> Callable[[str], int]:
    """The `type` of an option that takes whole numbers from `low` to 2^32 - 1, the largest seed."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or not low <= int(text) <= _MOST:
            raise argparse.ArgumentTypeError(f"{text} must be a whole number from {low} to {_MOST}")
        return int(text)

    return read


DATA = ("data_path", "data_dir")
"""Where data are that are no longer where training found them."""

JOB = ("coordinator_address", "num_processes", "process_id")
"""The arguments of `kaem_jax.jax_utils.processes.initialize`."""

_SHARED: dict[str, dict[str, Any]] = {
    "workdir": {"type": to_path, "required": True, "help": "folder of the run"},
    "checkpoint": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "the last one, or the best by held-out log-likelihood",
    },
    "seed": {"type": at_least(0), "default": 0, "help": "seed of random draws"},
    "data_path": {"help": "own data, if they are not where training found them"},
    "data_dir": {"help": "folder of prepared data, if it is not the one that training used"},
    "overwrite": {"action": "store_true", "help": "replace what is there"},
    "coordinator_address": {"help": "host:port of process 0, if no launcher provides it"},
    "num_processes": {"type": int, "help": "processes of the job, with --coordinator_address"},
    "process_id": {"type": int, "help": "number of this process, with --coordinator_address"},
}


def make_parser(command: str, description: str, *shared: str, **settings: Any) -> argparse.ArgumentParser:
    """The parser of `kaem COMMAND` with the options named by `shared`; `settings` go to `argparse.ArgumentParser`."""
    parser = argparse.ArgumentParser(prog=f"kaem {command}", description=description, **settings)
    for name in shared:
        parser.add_argument(f"--{name}", **_SHARED[name])
    return parser


def check_file(out: pathlib.Path, endings: tuple[str, ...], overwrite: bool, flag: str = "--out") -> None:
    """Checks an output path and makes its folder; raises a ConfigError before anything is computed."""
    if out.suffix.lower() not in endings:
        raise ConfigError(f"{flag} {out} must end in {' or '.join(endings)}")
    if out.is_dir():
        raise ConfigError(f"{flag} {out} is a folder; give a file")
    if out.exists() and not overwrite:
        raise ConfigError(f"{flag} {out} exists; give another one, or --overwrite")
    if out.suffix.lower() == ".parquet" and importlib.util.find_spec("polars") is None:
        raise ConfigError("writing Parquet needs polars: pip install polars")
    out.parent.mkdir(parents=True, exist_ok=True)
