"""The option `--where "age>30, sex=F|M"` of the commands that draw, score and fill rows of tables."""

import argparse
import dataclasses
import sys

import jax
import numpy as np

from kaem_jax.app.data import Table
from kaem_jax.app.data.conditions import bounds_of
from kaem_jax.app.runs.load import Run
from kaem_jax.errors import ConfigError
from kaem_jax.inference.finite_mixture import FiniteMixture, MixtureLogProb
from kaem_jax.likelihoods import Masked

_NUM_POINTS = 2**16


def add_where(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds the option."""
    parser.add_argument("--where", metavar="CONDITIONS", help=f'{what}; "age>30, sex=F|M" for instance')


def with_conditions(run: Run, text: str | None) -> Run:
    """The run with a likelihood under which missing values meet the conditions."""
    if text is None:
        return run
    if not isinstance(run.form, Table):
        raise ConfigError(f"--where={text!r} needs a run on a table, and data.name={run.config.data.name!r}")
    try:
        low, high = bounds_of(run.form, text)
        likelihood = Masked(run.model.likelihood, tuple(low.tolist()), tuple(high.tolist()))
    except ValueError as error:
        raise ConfigError(f"--where: {error}") from None
    return dataclasses.replace(run, model=dataclasses.replace(run.model, likelihood=likelihood))


def compile_conditions(key: jax.Array, run: Run) -> tuple[FiniteMixture, MixtureLogProb]:
    """The model of `with_conditions` as a finite mixture, and log p of the conditions."""
    try:
        mixture = FiniteMixture.of(key, run.model, run.params, _NUM_POINTS)
    except ValueError as error:
        raise ConfigError(f"--where: {error}") from None
    found = mixture.log_condition()
    if not np.isfinite(found.value):
        raise ConfigError("--where: the model has no probability for these conditions")
    print(f"log p of the conditions: {found.value:.3f} +- {found.standard_error:.3f} nats", file=sys.stderr)
    return mixture, found


def meeting(run: Run, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Data with NaN for numbers that an equality condition fixes, and which data meet the conditions, bool [N]."""
    likelihood = run.model.likelihood
    assert isinstance(likelihood, Masked)
    assert isinstance(run.form, Table)
    low, high = np.array(likelihood.low, np.float32), np.array(likelihood.high, np.float32)
    meets = ~np.any((x < low) | (x > high), axis=1)
    is_fixed = (low == high) & np.repeat([not column.categories for column in run.form.columns], run.form.sizes)
    return np.where(meets[:, None] & is_fixed, np.nan, x), meets
