"""How a model changed over the checkpoints that its run keeps."""

import pathlib
from typing import NamedTuple

import numpy as np

from kaem_jax.data import are_pictures
from kaem_jax.devices.processes import say
from kaem_jax.errors import RunError
from kaem_jax.evaluation.generate import sample_in_batches
from kaem_jax.evaluation.latents import density_curves, learned_densities
from kaem_jax.runs.checkpoints import Checkpoints
from kaem_jax.runs.run import load_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.keys import evaluation_keys, sample_key

__all__ = ["Film", "draw_film", "make_film"]

_NUM_DRAWS = 36


class Film(NamedTuple):
    """What the frames show, one for each of K checkpoints; arguments of `figures.write_film`.

    Attributes:
      steps: K numbers of updates, rising.
      samples: [K, 36, *data_shape], one set of prior draws through each checkpoint; None where data are no images.
      z, density, base: [K, M, L], as `density_curves` returns them for each checkpoint.
      names: L labels of latents, by what they explain at the last checkpoint, most informative first.
    """

    steps: list[int]
    samples: np.ndarray | None
    z: np.ndarray
    density: np.ndarray
    base: np.ndarray
    names: list[str]


def draw_film(folder: RunFolder, seed: int = 0) -> pathlib.Path:
    """Writes the film of a run, `figures/training.gif`; see `make_film`."""
    from kaem_jax.evaluation import figures

    figures.write_film(folder.film, *make_film(folder, seed))
    return folder.film


def make_film(folder: RunFolder, seed: int = 0) -> Film:
    """Decodes the draws that `kaem sample --seed` writes by every checkpoint of a run.

    Raises:
      RunError: there is no such run, a checkpoint is damaged, or fewer than two are kept.
    """
    folder.read_config()
    steps: list[int] = []
    if folder.checkpoints.is_dir():
        with Checkpoints(folder.checkpoints, None) as checkpoints:
            steps = checkpoints.steps
    if len(steps) < 2:
        raise RunError(
            f"a film needs two checkpoints or more, and {folder.root} keeps {len(steps)}: train with a larger "
            "--config.checkpoint.keep_last, for instance 50, and a smaller --config.checkpoint.every_steps"
        )
    samples, curves = [], []
    for step in steps:
        say(f"decoding the draws by checkpoint {step}")
        run = load_run(folder.root, step)
        if are_pictures(run.form, run.model.data_shape):
            samples += list(sample_in_batches(sample_key(seed), run.model, run.params, _NUM_DRAWS))
        *curve, unranked = density_curves(run.model, run.params)
        curves.append(curve)
    names = learned_densities(evaluation_keys(seed).figures, run).names
    order = [unranked.index(name) for name in names]
    z, density, base = (np.stack(arrays)[..., order] for arrays in zip(*curves, strict=True))
    return Film(steps, np.stack(samples) if samples else None, z, density, base, names)
