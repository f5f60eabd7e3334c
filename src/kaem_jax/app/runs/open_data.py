"""Opens the data of a run, and checks that they are the data it was trained on."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from kaem_jax.app.data import Dataset, evaluated_rows, load_dataset
from kaem_jax.app.experiment.experiment import naming
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, RunError
from kaem_jax.jax_utils.processes import say


def open_data(
    run: Run, workdir: pathlib.Path, data_path: str | None = None, data_dir: str | None = None, **changes: Any
) -> Dataset:
    """Opens the data of the run in `workdir`; `changes` replace data settings. Prepared training images stay on disk.

    Raises:
      ConfigError, DataError, RunError: data of this kind have no such place, are missing, or are not those of the run.
    """
    data = run.config.data
    with naming("data"):
        settings = dataclasses.replace(data, path=data_path or data.path, dir=data_dir or data.dir, **changes)
    dataset = load_dataset(settings, lazy=True)
    check_is_of_run(RunFolder(pathlib.Path(workdir)), dataset)
    return dataset


def open_held_out(
    run: Run, workdir: pathlib.Path, num: int | None = None, data_path: str | None = None, data_dir: str | None = None
) -> np.ndarray:
    """`num` held-out data of the run, beginning with those that evaluated training; by default only these."""
    test = open_data(run, workdir, data_path, data_dir, num_held_out=0).held_out
    if num and num > len(test):
        raise ConfigError(f"--num={num} must be at most {len(test)}, the number of held-out data")
    evaluated = evaluated_rows(run.config.data, len(test))
    rows = np.concatenate([evaluated, np.setdiff1d(np.arange(len(test)), evaluated)])
    return test[rows[: num or len(evaluated)]]


def check_is_of_run(folder: RunFolder, dataset: Dataset) -> None:
    """Checks that these data are the ones the run was trained on.

    If only the training values differ, it warns: versions of a library may scale images differently.
    """
    saved = folder.read_config()
    if list(dataset.data_shape) != saved["data_shape"]:
        raise RunError(
            f"these data have shape {list(dataset.data_shape)}, and those of {folder.root} had "
            f"{saved['data_shape']}; give the data of the run, or train on these"
        )
    if not _alike(dataset.form.to_dict(), folder.saved_form().to_dict()):
        raise RunError(
            f"the training part of these data has other columns, categories, scales or tokens than that of "
            f"{folder.root}: they are other data, or rows were added; give the data of the run, train on these, or "
            "give new ones to score, impute and encode by --data"
        )
    if saved["data_fingerprint"] != dataset.fingerprint():
        say(f"warning: the training data are not those of {folder.root}; results may be wrong")


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether two descriptions are equal up to rounding."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_alike(value, theirs[name]) for name, value in ours.items())
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return ours == theirs
