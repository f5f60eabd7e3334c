"""Reads experiments: a user's own Python file with `get_config()`, or one that ships with the package."""

import fractions
import importlib.resources
import inspect
import math
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.settings import apply_overrides, flatten, read, to_dict

_LENGTH = "train.num_steps"
_FEW = 5  # evaluations
# Settings that scale with the length of a run: intervals, each a multiple of the one before, and schedules.
_INTERVALS = ("train.log_every", "evaluation.every_steps", "checkpoint.every_steps")
_SCHEDULES = ("optimizer.prior.warmup_steps", "optimizer.decoder.warmup_steps", "posterior.kl_warmup_steps")


def shipped() -> dict[str, pathlib.Path]:
    """The experiments in the package, by name."""
    folder = pathlib.Path(str(importlib.resources.files("kaem_jax.experiments")))
    paths = sorted([*folder.glob("[!_]*.py"), *folder.glob("baselines/[!_]*.py")])
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def read_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Reads the experiment of `--config NAME[:VARIANT]`, a file or one that ships, with `--config.KEY=VALUE`."""
    values = _dictionary(name)
    given = dict(argument.partition("=")[::2] for argument in overrides)
    if (length := given.get(f"--config.{_LENGTH}", "")).isdecimal() and int(length) > 0:
        overrides = [*overrides, *_followers(read(Experiment, values), int(length), given)]
    return read(Experiment, apply_overrides(Experiment, values, overrides))


def _followers(before: Experiment, length: int, given: Mapping[str, str]) -> list[str]:
    """Arguments that scale intervals and schedules to a new length, except those that are given."""
    old = flatten(to_dict(before))
    # An exact ratio: 0.009 * 6,000 is below 54, and a stage would lose an update.
    ratio, following = fractions.Fraction(length, old[_LENGTH]), {}
    later = [f"stages.{i}.{name}" for i in range(len(before.stages)) for name in ("num_steps", *_SCHEDULES)]
    for name in (*_SCHEDULES, *later):
        if old.get(name):  # it may be off
            following[name] = max(1, int(ratio * old[name]))
    # A short run is evaluated five times, not after every update.
    at_least = {"evaluation.every_steps": min(old["evaluation.every_steps"], ratio * before.num_steps) / _FEW}
    numbers = {name: int(value) for name in old if (value := given.get(f"--config.{name}", "")).isdecimal()}
    fixed = [numbers[name] for name in _INTERVALS if numbers.get(name)]
    base = 1
    for name in _INTERVALS:
        wanted = max(ratio * old[name], at_least.get(name, 1))
        following[name] = math.gcd(base * max(1, int(wanted / base)), *(f for f in fixed if f >= base))
        base = numbers.get(name) or following[name]
    return [f"--config.{name}={value}" for name, value in following.items() if f"--config.{name}" not in given]


def _dictionary(name: str) -> Mapping[str, Any]:
    file, colon, variant = name.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        if file not in (known := shipped()):
            raise ConfigError(
                f"--config {name!r} is neither a file nor an experiment that ships with kaem_jax: {', '.join(known)}"
            )
        path = known[file]
    try:
        get_config = runpy.run_path(str(path))["get_config"]
        if colon and not inspect.signature(get_config).parameters:
            raise ValueError(f"there is no variant {variant!r}: get_config() takes none")
        found = get_config(*[variant] * bool(colon))
        found = _plain(found)
    except Exception as error:  # a user's own file may raise anything
        raise ConfigError(f"--config {name!r} cannot be read: {type(error).__name__}: {first_line(error)}") from None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"--config {name!r}: get_config() returns {found!r}, which is neither a ConfigDict nor a dict"
        )
    return found


def _plain(value: Any) -> Any:
    value = value.to_dict() if hasattr(value, "to_dict") else value
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
