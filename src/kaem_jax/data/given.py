"""Reads data that a user gives to a command, in the form of the data that a run was trained on."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kaem_jax.data.dataset import DataError
from kaem_jax.data.folder import Layout, read_images
from kaem_jax.data.form import Field, Form, Table, Text
from kaem_jax.data.npz import read_arrays
from kaem_jax.data.table import read_table
from kaem_jax.data.text import read_lines

__all__ = ["read_given", "read_mask"]

_NAMES = ("images", "fields", "samples", "test", "x", "y", "data", "X")


def read_given(path: str, form: Form, data_shape: Sequence[int]) -> np.ndarray:
    """Data as the model sees them, [N, *data_shape]: float32, NaN where a value is missing; of texts int32.

    Args:
      path: a table for a run on tables, a file with one text in each line for one on texts; else an .npz file with
        one array (or one named `images`, `fields`, `samples`, `test`, `x`, `y` or `data`), in the units of the training
        data, NaN where a value is missing. Images may also be a folder, or an image file; their transparent pixels are
        missing.
      form: what the training data were.
      data_shape: of one datum.

    Raises:
      DataError: the file is missing or unreadable, or of other data.
    """
    if isinstance(form, Table):
        table = read_table(path)
        if not {column.name for column in form.columns} & table.keys():
            names = ", ".join(column.name for column in form.columns)
            raise DataError(f"--data {path!r} has columns {', '.join(table)}, and none that the model knows: {names}")
        return form.encode(table)
    if isinstance(form, Text):
        return form.encode(read_lines(path))
    values = _values(path, tuple(data_shape))
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 255
    if values.shape[1:] == tuple(data_shape)[:-1] and data_shape[-1] == 1:
        values = values[..., None]
    if values.shape[1:] != tuple(data_shape):
        raise DataError(f"--data {path!r} holds data of shape {values.shape[1:]}, the model takes {tuple(data_shape)}")
    return form.encode(values) if isinstance(form, Field) else values.astype(np.float32)


def read_mask(path: str, data_shape: Sequence[int]) -> np.ndarray:
    """Which values of every datum are missing, bool [*data_shape]: those that are not 0 in an array or an image.

    Raises:
      DataError: the file is missing or unreadable, or of another shape.
    """
    mask = _values(path, (*data_shape[:-1], 1))
    mask = mask[0] if mask.ndim == len(data_shape) + 1 or mask.shape[0] == 1 else mask
    if mask.shape == tuple(data_shape)[:-1]:
        mask = mask[..., None]
    try:
        return np.broadcast_to(mask != 0, tuple(data_shape))
    except ValueError:
        raise DataError(f"--mask {path!r} has shape {mask.shape}, the data have {tuple(data_shape)}") from None


def _values(path: str, data_shape: tuple[int, ...]) -> np.ndarray:
    file = pathlib.Path(path).expanduser()
    if file.suffix.lower() == ".npz":
        arrays, names = read_arrays(path)
        named = next((arrays[name] for name in _NAMES if name in arrays), None)
        if named is None and len(arrays) == 1:
            named = next(iter(arrays.values()))
        if named is None:
            raise DataError(f"--data {path!r} holds arrays {names}; wanted: one, or one named {', '.join(_NAMES)}")
        return _numbers(named, path)
    layout: Any = Layout(0, "crop", "rgb" if data_shape[-1] == 3 else "grey")
    return read_images(path, layout)


def _numbers(values: np.ndarray, path: str) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.number):
        raise DataError(f"--data {path!r} holds {values.dtype} values; wanted: numbers")
    return values
