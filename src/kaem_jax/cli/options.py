"""Options that several commands share."""

import argparse
import os
import pathlib
from collections.abc import Callable

__all__ = [
    "add_cache_option",
    "add_checkpoint_option",
    "add_data_options",
    "add_job_options",
    "add_seed_option",
    "add_workdir_option",
    "at_least",
    "to_path",
]

_LARGEST_SEED = 2**32 - 1


def to_path(text: str) -> pathlib.Path:
    """The `type` of an option that names a file or a folder: in --out=~/x no shell replaces the ~."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no file and no folder")
    return pathlib.Path(os.path.expanduser(text))  # leaves the ~ of users that nobody knows


def add_workdir_option(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of the run that a command works on."""
    parser.add_argument("--workdir", type=to_path, required=True, help="folder of the run")


def add_seed_option(parser: argparse.ArgumentParser, what: str = "seed of random draws") -> None:
    """Adds the seed of a command's random draws."""
    parser.add_argument("--seed", type=_seed, default=0, help=what)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 0 to {_LARGEST_SEED}")
    return int(text)


def at_least(low: int) -> Callable[[str], int]:
    """The `type` of an option that takes whole numbers from `low` on."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least {low}")
        return int(text)

    return read


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds the choice between the last checkpoint and the one with the highest held-out log-likelihood."""
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last",
                        help="the last one, or the best by held-out log-likelihood")  # fmt: skip


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds options for data that are no longer where training found them."""
    parser.add_argument("--data_path", help="own data, if they are not where training found them")
    parser.add_argument("--data_dir", help="folder of prepared data, if it is not the one that training used")


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of `kaem_jax.devices.compilation_cache.use_compilation_cache`."""
    parser.add_argument("--cache", metavar="FOLDER", help="where compiled programs are kept for the next start; off: "
                        "nowhere. ~/.cache/kaem_jax by default, or what KAEM_JAX_CACHE says")  # fmt: skip


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `kaem_jax.devices.processes.initialize`."""
    parser.add_argument("--coordinator_address", help="host:port of process 0, if no launcher provides it")
    parser.add_argument("--num_processes", type=int, help="processes of the job, with --coordinator_address")
    parser.add_argument("--process_id", type=int, help="number of this process, with --coordinator_address")
