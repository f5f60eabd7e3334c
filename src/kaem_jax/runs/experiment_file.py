"""Reads experiments: a user's own Python file with `get_config()`, or one that ships with the package."""

import importlib.resources
import importlib.util
import inspect
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kaem_jax.errors import ConfigError, first_line
from kaem_jax.runs.experiment import Experiment
from kaem_jax.settings import apply_overrides, read

__all__ = ["read_experiment", "shipped"]


def shipped() -> dict[str, pathlib.Path]:
    """The experiments in the package, by name."""
    folder = pathlib.Path(str(importlib.resources.files("kaem_jax.experiments")))
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def read_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that `--config NAME[:VARIANT]` means, with `--config.KEY=VALUE` arguments applied.

    Args:
      name: a file, or an experiment that ships with the package; a variant follows a colon: `svhn:tiny`. A file wins
        over a shipped experiment.
      overrides: `--config.KEY=VALUE` arguments.

    Raises:
      ConfigError: there is no such experiment or setting, the file cannot be read, or the result cannot be run.
    """
    return read(Experiment, apply_overrides(Experiment, _dictionary(name), overrides))


def _dictionary(name: str) -> Mapping[str, Any]:
    """What `get_config` of the file returns, as a nested dictionary."""
    file, colon, variant = name.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        if file not in (known := shipped()):
            raise ConfigError(
                f"--config {name!r} is neither a file nor an experiment that ships with kaem_jax: {', '.join(known)}"
            )
        path = known[file]
    try:
        spec = importlib.util.spec_from_file_location(f"kaem_experiment_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if colon and not inspect.signature(module.get_config).parameters:
            raise ConfigError(
                f"--config {name!r}: this experiment has no variants; leave out the colon and what follows"
            )
        found = module.get_config(*[variant] * bool(colon))
        found = found.to_dict() if hasattr(found, "to_dict") else found  # a ConfigDict
    except ConfigError:
        raise
    except Exception as error:  # a user's own file may raise anything
        raise ConfigError(f"--config {name!r} cannot be read: {type(error).__name__}: {first_line(error)}") from None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"--config {name!r}: get_config() returns {found!r}, which is neither a ConfigDict nor a dict"
        )
    return found
