"""What several commands share: options, checks of output paths, loading of run and data, batches."""

import argparse
import importlib.util
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kaem_jax.app.data import read_given
from kaem_jax.app.runs.load import Run, load_run, open_held_out
from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.training.batch import as_seen

_MOST = 2**32 - 1
# Data per batch: Laplace approximations need the derivative of every value by every latent, for several modes.
_BATCH, _VALUES = 100, 307_200  # 100 images of 32 x 32 in colour


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


def to_checkpoint(text: str) -> str | int:
    """The `type` of --checkpoint."""
    if text in ("last", "best"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} must be last, best or the step of a checkpoint")
    return int(text)


DATA = ("data_path", "data_dir")
JOB = ("coordinator_address", "num_processes", "process_id")

_SHARED: dict[str, dict[str, Any]] = {
    "workdir": {"type": to_path, "required": True, "help": "folder of the run"},
    "out": {"type": to_path, "required": True},
    "num": {"type": at_least(1)},
    "draws": {"type": at_least(2), "default": 16, "help": "posterior draws of each datum"},
    "checkpoint": {"type": to_checkpoint, "default": "last", "help": "last, best (on held-out data), or a step"},
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


def make_inference_parser(name: str, description: str, out: str, *more: str) -> argparse.ArgumentParser:
    """A parser with the options that `kaem score`, `kaem impute` and `kaem encode` share."""
    num = "so many of the data, from the first on; by default all, or the held-out data that evaluated training"
    shared = ("workdir", "seed", "checkpoint", "overwrite", *DATA, *more)
    parser = make_parser(name, description, *shared, out=out, num=num)
    parser.add_argument("--data", help="a table, an .npz file, an image, a folder of images, or texts, in units of the "
                        "training data; held-out data by default")  # fmt: skip
    return parser


def open_run(given: argparse.Namespace) -> tuple[Run, np.ndarray]:
    """The run, and its data as the model sees them, [N, *data_shape]."""
    run = load_run(given.workdir, given.checkpoint)
    if not run.model.prior.is_normalized:
        raise ConfigError(
            f"{type(run.model.prior).__name__} is not normalised: log p(x) and posteriors need one that is"
        )
    if given.data:
        x = read_given(given.data, run.form, run.model.data_shape, run.config.data)
    else:
        held_out = open_held_out(run, given.workdir, given.num, given.data_path, given.data_dir)
        x = as_seen(held_out)
    if not len(x):
        raise ConfigError(f"--data {given.data!r} holds no data")
    return run, x[: given.num]


def apply(function: Callable[[jax.Array, jax.Array], Any], key: jax.Array, x: np.ndarray) -> Any:
    """Calls `function(key, batch)` on batches of one size and joins the results along axis 0."""
    size = min(_BATCH, max(1, _VALUES // math.prod(x.shape[1:])), len(x))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *in_batches(function, key, x, size))
