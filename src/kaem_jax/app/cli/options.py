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
JOB = ("coordinator_address", "num_processes", "process_id")

_SHARED: dict[str, dict[str, Any]] = {
    "workdir": {"type": to_path, "required": True, "help": "folder of the run"},
    "out": {"type": to_path, "required": True},
    "num": {"type": at_least(1)},
    "draws": {"type": at_least(2), "default": 16, "help": "posterior draws of each datum"},
    "checkpoint": {"choices": ("last", "best"), "default": "last", "help": "last, or best by held-out log-likelihood"},
    "seed": {"type": at_least(0), "default": 0, "help": "seed of random draws"},
    "data_path": {"help": "own data, if they are not where training found them"},
    "data_dir": {"help": "folder of prepared data, if it is not the one that training used"},
    "overwrite": {"action": "store_true", "help": "replace what is there"},
    "coordinator_address": {"help": "host:port of process 0, if no launcher provides it"},
    "num_processes": {"type": int, "help": "processes of the job, with --coordinator_address"},
    "process_id": {"type": int, "help": "number of this process, with --coordinator_address"},
}


def make_parser(command: str, description: str, *shared: str, **own: str) -> argparse.ArgumentParser:
    """The parser of `kaem COMMAND`, with options named by `shared` and those to which `own` gives a help text."""
    parser = argparse.ArgumentParser(prog=f"kaem {command}", description=description)
    for name in (*shared, *own):
        parser.add_argument(f"--{name}", **_SHARED[name] | ({"help": own[name]} if name in own else {}))
    return parser


def check_file(out: pathlib.Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Checks an output path and makes its folder; raises a ConfigError before anything is computed."""
    if out.suffix.lower() not in endings:
        raise ConfigError(f"--out {out} must end in {' or '.join(endings)}")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out} exists; give another one, or --overwrite")
    if out.suffix.lower() == ".parquet" and importlib.util.find_spec("polars") is None:
        raise ConfigError("writing Parquet needs polars: pip install polars")
    out.parent.mkdir(parents=True, exist_ok=True)
