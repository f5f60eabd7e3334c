"""Refuses an output that cannot be written, before anything is computed."""

import importlib.util
import os
import pathlib

from kaem_jax.errors import ConfigError

__all__ = ["check_file", "check_place"]


def check_file(out: pathlib.Path, endings: tuple[str, ...], overwrite: bool, flag: str = "--out") -> None:
    """Checks a file's path.

    Raises:
      ConfigError: it has another ending, is a folder, exists, cannot be written, or needs a package for it.
    """
    if out.suffix.lower() not in endings:
        raise ConfigError(f"{flag} {out} must end in {' or '.join(endings)}")
    if out.is_dir():
        raise ConfigError(f"{flag} {out} is a folder; give a file")
    if out.exists() and not overwrite:
        raise ConfigError(f"{flag} {out} exists; give another one, or --overwrite")
    check_place(out, flag)


def check_place(out: pathlib.Path, flag: str = "--out") -> None:
    """Checks that a file or a folder can be made at this path; errors as for `check_file`."""
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ConfigError(f"{flag} {out} cannot be written: {nearest} is no folder in which files may be made")
    if out.suffix.lower() == ".parquet" and importlib.util.find_spec("polars") is None:
        raise ConfigError("writing Parquet needs polars: pip install polars")
