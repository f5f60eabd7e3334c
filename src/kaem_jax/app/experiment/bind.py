"""Completes an experiment with sizes that only its data give, and refuses settings that do not fit the data."""

import dataclasses
from typing import Any

import numpy as np

from kaem_jax.app.data import Dataset, Table, Text
from kaem_jax.app.experiment.experiment import Experiment, naming
from kaem_jax.errors import ConfigError
from kaem_jax.jax_utils.processes import say
from kaem_jax.likelihoods import Categorical, Columns
from kaem_jax.training.batch import as_seen

_NUM_LOOKED_AT = 100


def bind(config: Experiment, dataset: Dataset) -> Experiment:
    """Adds the sizes of a table's columns, or the number of tokens; raises a ConfigError if a setting does not fit."""
    likelihood: Any = config.likelihood
    if isinstance(likelihood, Columns) and isinstance(dataset.form, Table):
        likelihood = dataclasses.replace(likelihood, sizes=dataset.form.sizes)
    if isinstance(likelihood, Categorical) and isinstance(dataset.form, Text):
        likelihood = dataclasses.replace(likelihood, vocabulary=dataset.form.num_tokens)
    config = dataclasses.replace(config, likelihood=likelihood)
    if config.data.batch_size > len(dataset.train):
        raise ConfigError(
            f"data.batch_size={config.data.batch_size} must be at most {len(dataset.train)}, the size of the "
            f"training split of data.name={config.data.name!r}"
        )
    if isinstance(dataset.form, Table):
        _check_columns(dataset.form, np.asarray(dataset.train))
    _check_pixels(config, dataset)
    _check_labels(config, dataset)
    return config


def _check_columns(form: Table, train: np.ndarray) -> None:
    """Refuses constant columns: their density would grow without bound."""
    for column, end in zip(form.columns, np.cumsum(form.sizes), strict=True):
        known = train[np.isfinite(train[:, end - 1]), end - 1]
        if not column.categories and known.size and known.max() == known.min():
            raise ConfigError(
                f"data.columns: {column.name!r} has one value only in the training rows, {column.mean:g}; leave it out"
            )


def _check_pixels(config: Experiment, dataset: Dataset) -> None:
    height_and_width = dataset.data_shape[:2]
    if config.data.transpose and (len(height_and_width) < 2 or height_and_width[0] != height_and_width[1]):
        raise ConfigError(
            f"data.transpose=True needs square images or fields; data of shape {dataset.data_shape} are not: set False"
        )
    with naming("likelihood"):
        seen = as_seen(dataset.held_out[:_NUM_LOOKED_AT])
        config.likelihood.check_data(seen.reshape(len(seen), -1))


def _check_labels(config: Experiment, dataset: Dataset) -> None:
    if not config.data.labels:
        return
    if dataset.train_labels is None:
        raise ConfigError(f"data.labels=True needs classes, and data.name={config.data.name!r} has none: set False")
    found = np.unique(dataset.train_labels(np.arange(len(dataset.train))))
    prior: Any = config.prior  # clustered, since there are labels
    num_classes = prior.num_classes
    if found[0] < 0 or found[-1] >= num_classes:
        raise ConfigError(
            f"prior.num_classes={num_classes} does not fit labels from {found[0]} to {found[-1]}: it must be at least "
            f"{found[-1] + 1}"
        )
    if missing := sorted(set(range(num_classes)) - set(found.tolist())):
        if prior.proportions == "uniform":
            raise ConfigError(
                f"prior.num_classes={num_classes}, and no training datum has the label {missing[0]}: the clusters of "
                "that class would keep their share of the prior. Number labels from 0 without gaps, or set "
                "prior.proportions='learned'"
            )
        say(f"no training datum has the label {missing[0]}: samples of that class are meaningless")
