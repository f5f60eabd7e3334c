"""Opens the data of a run, and checks that they are the data it was trained on."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from kaem_jax.data import Dataset, DataSettings, judged_rows, load_dataset
from kaem_jax.devices.processes import say
from kaem_jax.errors import ConfigError, RunError
from kaem_jax.runs.experiment import naming
from kaem_jax.runs.run import Run
from kaem_jax.runs.run_folder import RunFolder

__all__ = ["check_is_of_run", "find_data", "open_data", "open_held_out"]


def find_data(settings: DataSettings, data_path: str | None, data_dir: str | None) -> DataSettings:
    """The settings of a run's data, with the places given here instead of those where training found them.

    Raises:
      ConfigError: data of this kind have no such place.
    """
    with naming("data"):
        return dataclasses.replace(settings, path=data_path or settings.path, dir=data_dir or settings.dir)


def open_data(
    run: Run, workdir: pathlib.Path, data_path: str | None = None, data_dir: str | None = None, **changes: Any
) -> Dataset:
    """The data of the run in `workdir`, with training data left on disk where they can be; `changes` replace settings.

    Raises:
      ConfigError: a place does not suit the run.
      DataError: the data are missing.
      RunError: they are not those of the run.
    """
    settings = find_data(run.config.data, data_path, data_dir)
    dataset = load_dataset(dataclasses.replace(settings, **changes), lazy=True)
    check_is_of_run(RunFolder(pathlib.Path(workdir)), dataset)
    return dataset


def open_held_out(
    run: Run,
    workdir: pathlib.Path,
    num: int | None = None,
    data_path: str | None = None,
    data_dir: str | None = None,
) -> np.ndarray:
    """`num` of the run's held-out data, first those on which training was evaluated; by default these alone.

    Raises:
      ConfigError: there are fewer; `open_data` lists other errors.
    """
    test = open_data(run, workdir, data_path, data_dir, num_held_out=0).held_out
    if num and num > len(test):
        raise ConfigError(f"--num={num} must be at most {len(test)}, the number of held-out data")
    judged = judged_rows(run.config.data, len(test))
    rows = np.concatenate([judged, np.setdiff1d(np.arange(len(test)), judged)])
    return test[rows[: num or len(judged)]]


def check_is_of_run(folder: RunFolder, dataset: Dataset) -> None:
    """Checks that these data are what the run was trained on.

    Other training values of the same form only give a warning: another version of a library scales images differently.

    Raises:
      RunError: they have another shape, or other columns, scales or tokens.
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
    """Whether descriptions are the same up to rounding."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_alike(value, theirs[name]) for name, value in ours.items())
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return ours == theirs
