"""What `kaem score`, `kaem impute` and `kaem encode` share: options, loading of run and data, batches."""

import argparse
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kaem_jax.app.cli import options
from kaem_jax.app.data import read_given
from kaem_jax.app.runs.load import Run, load_run, open_held_out
from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.training.batch import as_seen

# Data per batch: Laplace approximations need the derivative of every value by every latent, for several modes.
_BATCH, _VALUES = 100, 307_200  # 100 images of 32 x 32 in colour


def make_parser(name: str, description: str, out: str, *more: str) -> argparse.ArgumentParser:
    """A parser with the shared options."""
    num = "so many of the data, from the first on; by default all, or the held-out data that evaluated training"
    shared = ("workdir", "seed", "checkpoint", "overwrite", *options.DATA, *more)
    parser = options.make_parser(name, description, *shared, out=out, num=num)
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
