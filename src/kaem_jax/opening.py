"""Opens the data of a run, and makes sure that they are those of the run."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from kaem_jax.config import ConfigError, DataConfig
from kaem_jax.config.names import OWN_FILES, PREPARED
from kaem_jax.continuing import check_data
from kaem_jax.data import Dataset, judged_rows, load_dataset
from kaem_jax.run import Run
from kaem_jax.workdir import Workdir

__all__ = ["find_data", "open_data", "open_held_out"]


def find_data(settings: DataConfig, data_path: str | None, data_dir: str | None) -> DataConfig:
    """The settings of a run's data, with places that are given in place of those where training found them.

    Raises:
      ConfigError: the data of this run are not at such a place.
    """
    for flag, value, names in (("data_path", data_path, OWN_FILES), ("data_dir", data_dir, PREPARED)):
        if value and settings.name not in names:
            raise ConfigError(f"--{flag} {value}: the run's data.name={settings.name!r} needs none; leave it out")
    return dataclasses.replace(settings, path=data_path or settings.path, dir=data_dir or settings.dir)


def open_data(
    run: Run, workdir: pathlib.Path, data_path: str | None = None, data_dir: str | None = None, **changes: Any
) -> Dataset:
    """The data of the run in `workdir`, training data on disk; `changes` replace settings of them.

    Raises:
      ConfigError: a place does not suit the run.
      DataError: the data are missing.
      RunError: they are not those of the run.
    """
    settings = find_data(run.config.data, data_path, data_dir)
    dataset = load_dataset(dataclasses.replace(settings, **changes), lazy=True)
    check_data(Workdir(workdir), dataset)
    return dataset


def open_held_out(
    run: Run,
    workdir: pathlib.Path,
    num: int | None = None,
    data_path: str | None = None,
    data_dir: str | None = None,
) -> np.ndarray:
    """`num` of the run's held-out data, first those that training was judged on; by default these alone.

    Raises:
      ConfigError: there are not so many; or see `open_data`, as for other errors.
    """
    test = open_data(run, workdir, data_path, data_dir, num_held_out=0).held_out
    if num and num > len(test):
        raise ConfigError(f"--num={num} must be at most {len(test)}, the number of held-out data")
    judged = judged_rows(run.config.data, len(test))
    rows = np.concatenate([judged, np.setdiff1d(np.arange(len(test)), judged)])
    return test[rows[: num or len(judged)]]
