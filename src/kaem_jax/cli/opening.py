"""Opens the data of a run, and makes sure that they are those of the run."""

import argparse
import dataclasses
from typing import Any

import numpy as np

from kaem_jax.config import ConfigError, DataConfig
from kaem_jax.config.names import OWN_FILES, PREPARED
from kaem_jax.continuing import check_data
from kaem_jax.data import Dataset, load_dataset
from kaem_jax.run import Run
from kaem_jax.workdir import Workdir

__all__ = ["find_data", "open_data", "open_held_out"]


def find_data(settings: DataConfig, given: argparse.Namespace) -> DataConfig:
    """The settings of a run's data, with the places that these options give.

    Raises:
      ConfigError: the data of this run are not at such a place.
    """
    for flag, value, names in (("data_path", given.data_path, OWN_FILES), ("data_dir", given.data_dir, PREPARED)):
        if value and settings.name not in names:
            raise ConfigError(f"--{flag} {value}: the run's data.name={settings.name!r} needs none; leave it out")
    return dataclasses.replace(settings, path=given.data_path or settings.path, dir=given.data_dir or settings.dir)


def open_data(run: Run, given: argparse.Namespace, **changes: Any) -> Dataset:
    """The data of a run, where these options say, training data on disk; `changes` replace settings of them.

    Raises:
      ConfigError: these options do not suit the run.
      DataError: the data are missing.
      CheckpointError: they are not those of the run.
    """
    dataset = load_dataset(dataclasses.replace(find_data(run.config.data, given), **changes), lazy=True)
    check_data(Workdir(given.workdir), dataset)
    return dataset


def open_held_out(run: Run, given: argparse.Namespace) -> np.ndarray:
    """The first `--num` of a run's held-out data; without it as many as training was judged on.

    Raises:
      ConfigError: there are not so many.
    """
    judged = run.config.data.num_held_out
    test = open_data(run, given, num_held_out=max(judged, given.num) if judged and given.num else judged).test
    if given.num and given.num > len(test):
        raise ConfigError(f"--num={given.num} must be at most {len(test)}, the number of held-out data")
    return test[: given.num]
