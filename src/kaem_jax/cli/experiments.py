"""Finds the file of an experiment: the user's own path, or an experiment that ships with the package."""

import importlib.resources
import pathlib

from kaem_jax.settings import ConfigError

__all__ = ["experiment_file", "shipped"]


def shipped() -> dict[str, pathlib.Path]:
    """The experiments in the package, by name."""
    folder = pathlib.Path(str(importlib.resources.files("kaem_jax.experiments")))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def experiment_file(config: str) -> str:
    """The file, with its variant, that --config means: `svhn`, `svhn:tiny`, `experiments/svhn.py`, `mine.py:small`.

    A file wins over the name of a shipped experiment.

    Raises:
      ConfigError: it is neither.
    """
    name, colon, variant = config.partition(":")
    if pathlib.Path(name).is_file():
        return config
    known = shipped()
    if name not in known:
        raise ConfigError(
            f"--config {config!r} is neither a file nor an experiment that ships with kaem_jax: {', '.join(known)}"
        )
    return f"{known[name]}{colon}{variant}"
