"""Reads data that a user gives to a command, in the form of the data that a run was trained on."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.data.columns import Table
from kaem_jax.data.field import WHOLE, with_channels
from kaem_jax.data.folder import Fit, Layout, read_images
from kaem_jax.data.form import Field, Form, Text
from kaem_jax.data.npz import read_arrays
from kaem_jax.data.settings import DataSettings
from kaem_jax.data.table import read_table, unknown_categories
from kaem_jax.data.text import read_lines, without_classes
from kaem_jax.devices.processes import say
from kaem_jax.errors import DataError

__all__ = ["fit_of", "read_given", "read_mask", "read_table_of"]

_OF_FIELDS = ("samples", "test", *WHOLE, "X")
_OF_PIXELS = ("images", "samples", "test", "x", "data", "X")  # beside them, y may be labels


def read_given(path: str, form: Form, data_shape: Sequence[int], settings: DataSettings) -> np.ndarray:
    """Data as the model sees them, [N, *data_shape]: float32, NaN where a value is missing; of texts int32.

    Args:
      path: a table for a run on tables, a file with one text in each line for one on texts; else an .npz file with
        one array, or several: then of fields the first of `samples`, `test`, `fields`, `y`, `x`, `data`, `images`, `X`,
        of images the first of `images`, `samples`, `test`, `x`, `data`, `X`. Values are in the units of the training
        data, NaN where one is missing. Images may also be a folder, or an image file; their transparent pixels are
        missing.
      form: what the training data were.
      data_shape: of one datum.
      settings: of the training data. A file with all arrays in `columns` is read like that of training, and image files
        are cropped and scaled alike.

    Raises:
      DataError: the file is missing or unreadable, or of other data.
    """
    with _named("--data"):
        return _read_given(path, form, tuple(data_shape), settings)


def _read_given(path: str, form: Form, shape: tuple[int, ...], settings: DataSettings) -> np.ndarray:
    if isinstance(form, Table):
        table = read_table_of(form, path)
        if not {column.name for column in form.columns} & table.keys():
            names = ", ".join(column.name for column in form.columns)
            raise DataError(f"--data {path!r} has columns {', '.join(table)}, and none that the model knows: {names}")
        try:
            values = form.encode(table)
        except ValueError as error:
            raise DataError(f"--data {path!r}: {error}") from None
        if absent := [column.name for column in form.columns if column.name not in table]:
            say(f"--data {path!r} has no column {', '.join(map(repr, absent))}: missing in every row")
        for found in unknown_categories(form, table, values):
            say(f"{found}: missing")
        return values
    if isinstance(form, Text):
        texts = read_lines(path, keep_empty=True)  # so that results have the numbers of the lines
        texts = without_classes(texts) if settings.name == "sms_spam" else texts
        if long := sum(len(form.tokens(text)) > form.length for text in texts):
            say(f"--data {path!r}: {long:,} texts are longer than data.length={form.length}, and read up to there")
        return form.encode(texts)
    if pathlib.Path(path).suffix.lower() == ".npz":
        is_field = isinstance(form, Field)
        values = _chosen(path, "--data", settings.columns if is_field else (), _OF_FIELDS if is_field else _OF_PIXELS)
    else:
        is_coloured = len(shape) == 3 and shape[-1] == 3
        size = shape[0] if settings.name == "celeb_a" else settings.image_size
        values = read_images(path, Layout(size, fit_of(settings), "rgb" if is_coloured else "grey"))
    if not isinstance(form, Field):
        values = _in_unit_interval(path, values)
    if np.isinf(values).any():
        raise DataError(f"--data {path!r} holds infinite values; wanted: numbers, NaN where one is missing")
    if values.shape[1:] == (*shape, 1) or (*values.shape[1:], 1) == shape:  # one channel, with an axis or without
        values = values.reshape(-1, *shape)
    if values.shape[1:] != shape:
        raise DataError(f"--data {path!r} holds data of shape {values.shape[1:]}, the model takes {shape}")
    return form.encode(values) if isinstance(form, Field) else values.astype(np.float32)


def fit_of(settings: DataSettings) -> Fit:
    """How images are cropped or padded for a model of these data."""
    return "portrait" if settings.name == "celeb_a" else settings.fit


def read_table_of(form: Table, path: str) -> dict[str, list[Any]]:
    """All columns of a user's file: categories of training as text, and those that training did not see as they are."""
    known = {column.name: column for column in form.columns}
    return read_table(path, as_text=[name for name in known if known[name].categories], known=known)


def _in_unit_interval(path: str, pixels: np.ndarray) -> np.ndarray:
    """As in training: uint8 is divided by 255, and other pixels lie in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    known = pixels[np.isfinite(pixels)]
    if known.size and not (known.min() >= 0 and known.max() <= 1):
        raise DataError(
            f"--data {path!r} holds {pixels.dtype} values from {known.min():g} to {known.max():g}; wanted: uint8, or "
            "floats in [0, 1]"
        )
    return pixels


def read_mask(path: str, data_shape: Sequence[int]) -> np.ndarray:
    """Which values of every datum are missing, bool [*data_shape]: those that are not 0 in an array or an image.

    An array may leave out the axis of channels, and is the only one of its file or named `mask`. An image
    has the height and width of the data: scaling would blur its edges.

    Raises:
      DataError: the file is missing or unreadable, or of another shape.
    """
    shape = tuple(data_shape)
    with _named("--mask"):
        if pathlib.Path(path).suffix.lower() == ".npz":
            mask = _chosen(path, "--mask", (), ("mask", *_OF_PIXELS))
        else:
            mask = np.nan_to_num(read_images(path, Layout(channels="grey")))  # nothing is drawn where it is transparent
    is_missing = mask != 0
    for whole in (shape, (*shape[:-1], 1)) if len(shape) == 3 else (shape,):
        if _without_ones(mask.shape) == _without_ones(whole):
            return np.broadcast_to(is_missing.reshape(whole), shape)
    raise DataError(f"--mask {path!r} has shape {mask.shape}, the data have {shape}")


@contextlib.contextmanager
def _named(flag: str) -> Iterator[None]:
    """Readers, which training uses too, call a file `data.path`; here it is a flag's."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("data.path", flag)) from None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _chosen(path: str, flag: str, columns: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The arrays `columns` as channels if all are there, else the first that is, or the only one."""
    arrays, found = read_arrays(path)
    if columns and set(columns) <= arrays.keys():
        return _joined(path, flag, {name: arrays[name] for name in columns})
    chosen = next((name for name in names if name in arrays), found[0] if len(found) == 1 else None)
    if chosen is None:
        raise DataError(f"{flag} {path!r} holds arrays {found}; wanted: one, or one named {', '.join(names)}")
    values = arrays[chosen]
    if values.dtype.kind not in "buif":
        raise DataError(f"{flag} {path!r} holds {values.dtype} values; wanted: numbers")
    return values


def _joined(path: str, flag: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        return np.concatenate([with_channels(values) for values in arrays.values()], axis=-1)
    except ValueError:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise DataError(
            f"{flag} {path!r}: arrays of different shapes cannot be channels of one field: {shapes}"
        ) from None
