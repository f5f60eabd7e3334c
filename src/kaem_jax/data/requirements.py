"""Refuses, before the first step, settings of a run that do not fit the data that were loaded."""

import dataclasses

import numpy as np

from kaem_jax.data.columns import Table
from kaem_jax.data.dataset import Dataset, are_pictures, as_seen
from kaem_jax.data.form import Text
from kaem_jax.devices.processes import say
from kaem_jax.settings import CategoricalConfig, ColumnsConfig, Config, ConfigError

__all__ = ["check_data_fits", "complete"]

_MIN_HELD_OUT = 20  # for a comparison with samples
_NUM_LOOKED_AT = 100


def complete(config: Config, dataset: Dataset) -> Config:
    """The configuration with what only the data can say: the sizes of a table's columns, the number of tokens.

    Raises:
      ConfigError: the configuration says something else.
    """
    likelihood, form = config.likelihood, dataset.form
    if isinstance(likelihood, ColumnsConfig):
        assert isinstance(form, Table)
        if likelihood.sizes not in ((), form.sizes):
            raise ConfigError(
                f"likelihood.sizes={likelihood.sizes} contradicts the columns of the data, of sizes {form.sizes}: "
                "leave it out"
            )
        return dataclasses.replace(config, likelihood=dataclasses.replace(likelihood, sizes=form.sizes))
    if isinstance(likelihood, CategoricalConfig):
        assert isinstance(form, Text)
        if likelihood.vocabulary not in (0, form.num_tokens):
            raise ConfigError(
                f"likelihood.vocabulary={likelihood.vocabulary} contradicts the {form.num_tokens} tokens of the data: "
                "leave it out"
            )
        return dataclasses.replace(config, likelihood=dataclasses.replace(likelihood, vocabulary=form.num_tokens))
    return config


def check_data_fits(config: Config, dataset: Dataset) -> None:
    """Raises a `ConfigError`, which names the field and a way out, where settings do not fit the data."""
    if config.data.batch_size > len(dataset.train):
        raise ConfigError(
            f"data.batch_size={config.data.batch_size} must be at most {len(dataset.train)}, the size of the "
            f"training split of data.name={config.data.name!r}"
        )
    shown = dataset.held_out[: config.evaluation.num_reconstructions]
    if shown.size and shown.dtype.kind == "f" and np.isnan(shown).all():
        raise ConfigError(
            f"the first {len(shown)} held-out data of data.name={config.data.name!r} have no value that is known: look "
            "at missing cells and categories, or set another data.split_seed"
        )
    _check_columns(dataset)
    _check_pixels(config, dataset)
    _check_labels(config, dataset)
    every = config.evaluation.samples_every_steps
    if every and not are_pictures(dataset.form, dataset.data_shape):
        raise ConfigError(
            f"evaluation.samples_every_steps={every} needs images; data of shape {dataset.data_shape} are not: set 0"
        )
    if every and len(dataset.held_out) < _MIN_HELD_OUT:
        raise ConfigError(
            f"evaluation.samples_every_steps={every} needs at least {_MIN_HELD_OUT} held-out images, and there are "
            f"{len(dataset.held_out)}: set 0, or more data.num_held_out"
        )


def _check_columns(dataset: Dataset) -> None:
    """Refuses columns of one number: their density would grow without bound, and one other number spoil the mean."""
    if not isinstance(dataset.form, Table):
        return
    train = np.asarray(dataset.train)
    for column, end in zip(dataset.form.columns, np.cumsum(dataset.form.sizes), strict=True):
        known = train[np.isfinite(train[:, end - 1]), end - 1]
        if not column.categories and known.size and known.max() == known.min():
            raise ConfigError(
                f"data.columns: {column.name!r} has one value only in the training rows, {column.mean:g}; leave it out"
            )


def _check_pixels(config: Config, dataset: Dataset) -> None:
    """Refuses settings for pixels with data that are none."""
    if config.data.flip and len(dataset.data_shape) < 2:
        raise ConfigError(f"data.flip=True needs images; data of shape {dataset.data_shape} are not: set False")
    height_and_width = dataset.data_shape[:2]
    if config.data.transpose and (len(height_and_width) < 2 or height_and_width[0] != height_and_width[1]):
        raise ConfigError(
            f"data.transpose=True needs square images or fields; data of shape {dataset.data_shape} are not: set False"
        )
    levels = getattr(config.likelihood, "levels", None)
    if levels is not None:
        steps = as_seen(dataset.held_out[:_NUM_LOOKED_AT]).astype(np.float64) * (levels - 1)
        rounding = (levels - 1) * 2.0**-24  # of values in float32
        if np.abs(steps - np.round(steps)).max() > 1e-3 + rounding:
            raise ConfigError(
                f"likelihood.levels={levels} needs data that are multiples of 1 / {levels - 1}, and those of "
                f"data.name={config.data.name!r} are not: set their number of levels, or likelihood.kind='gaussian'"
            )


def _check_labels(config: Config, dataset: Dataset) -> None:
    """Refuses labels that are not there, or not those of the prior's classes."""
    if not config.data.labels:
        return
    if dataset.train_labels is None:
        raise ConfigError(f"data.labels=True needs classes, and data.name={config.data.name!r} has none: set False")
    found = np.unique(dataset.train_labels(np.arange(len(dataset.train))))
    num_classes = getattr(config.prior, "num_classes", 0)
    if found[0] < 0 or found[-1] >= num_classes:
        raise ConfigError(
            f"prior.num_classes={num_classes} does not fit labels from {found[0]} to {found[-1]}: it must be at least "
            f"{found[-1] + 1}"
        )
    if missing := sorted(set(range(num_classes)) - set(found.tolist())):
        if getattr(config.prior, "proportions", "uniform") == "uniform":
            raise ConfigError(
                f"prior.num_classes={num_classes}, and no training datum has the label {missing[0]}: the clusters of "
                "that class would keep their share of the prior. Number labels from 0 without gaps, or set "
                "prior.proportions='learned'"
            )
        say(f"no training datum has the label {missing[0]}: what is drawn of that class means nothing")
