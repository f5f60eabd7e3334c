"""Reads data that a user gives to a command, in the form of the training data."""

import pathlib
from collections.abc import Sequence

import numpy as np

from kaem_jax.app.data.arrays import FIELDS, read_arrays, with_channels
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.data.folder import read_images
from kaem_jax.app.data.forms import Field, Form, Table, Text
from kaem_jax.app.data.loading import reading
from kaem_jax.app.data.table import read_table
from kaem_jax.app.data.texts import read_lines, without_class
from kaem_jax.jax_utils.processes import say
from kaem_jax.tables.column import warn_of_unknown

_OF_FIELDS = ("samples", "test", *FIELDS, "X")
_OF_PIXELS = ("images", "samples", "test", "x", "data", "X")  # beside them, y may be labels


def read_given(path: str, form: Form, data_shape: Sequence[int], settings: DataSettings) -> np.ndarray:
    """Data of a user as the model sees them, [N, *data_shape]: float32, NaN where missing; int32 for texts.

    `path` is a table, a file with one text per line, an .npz file, an image or a folder of images, in units of the
    training data. What is unreadable or does not fit the model is a DataError.
    """
    with reading("--data", path):
        if isinstance(form, Table):
            return _read_rows(path, form)
        if isinstance(form, Text):
            lines = read_lines(path, keep_empty=True)  # so that results have the numbers of the lines
            texts = [without_class(line) for line in lines] if settings.name == "sms_spam" else lines
            if long := sum(len(form.tokens(text)) > form.length for text in texts):
                say(f"--data {path!r}: {long:,} texts are longer than data.length={form.length}, and cut there")
            return form.encode(texts)
        return _read_arrays(path, form, tuple(data_shape), settings)


def _read_rows(path: str, form: Table) -> np.ndarray:
    table, names = read_table(path, form), [column.name for column in form.columns]
    absent = [name for name in names if name not in table]
    if len(absent) == len(names):
        raise ValueError(f"it has columns {', '.join(table)}; wanted: {', '.join(names)}")
    if absent:
        say(f"--data {path!r} has no column {', '.join(map(repr, absent))}: missing in every row")
    warn_of_unknown(form.columns, table)
    return form.encode(table)


def _read_arrays(path: str, form: Form, shape: tuple[int, ...], settings: DataSettings) -> np.ndarray:
    is_field = isinstance(form, Field)
    if pathlib.Path(path).suffix.lower() == ".npz":
        values = _chosen(path, settings.columns if is_field else (), _OF_FIELDS if is_field else _OF_PIXELS)
    else:
        is_portrait = settings.name == "celeb_a"
        size, fit = shape[0] if is_portrait else settings.image_size, "portrait" if is_portrait else settings.fit
        values = read_images(path, size, fit, "rgb" if shape[2:] == (3,) else "grey")
    if not is_field:
        values = values / np.float32(255) if values.dtype == np.uint8 else values
        if not np.all(((values >= 0) & (values <= 1)) | np.isnan(values)):
            raise ValueError(f"it holds {values.dtype} values; wanted: uint8, or floats in [0, 1]")
    if values.shape[1:] == (*shape, 1) or (*values.shape[1:], 1) == shape:  # one channel, with an axis or without
        values = values.reshape(-1, *shape)
    if values.shape[1:] != shape:
        raise ValueError(f"it holds data of shape {values.shape[1:]}, the model takes {shape}")
    return form.encode(values) if isinstance(form, Field) else values.astype(np.float32)


def read_mask(path: str, data_shape: Sequence[int]) -> np.ndarray:
    """The mask of missing values, bool [*data_shape]: not 0 in an array or an image; raises a DataError.

    An array may omit the channel axis; it is the only one in its file, or is called `mask` or like images.
    """
    shape = tuple(data_shape)
    with reading("--mask", path):
        if pathlib.Path(path).suffix.lower() == ".npz":
            mask = _chosen(path, (), ("mask", *_OF_PIXELS))
        else:
            mask = np.nan_to_num(read_images(path, channels="grey"))  # transparent: nothing is drawn there
        for whole in (shape, (*shape[:-1], 1)) if len(shape) == 3 else (shape,):
            if [size for size in mask.shape if size > 1] == [size for size in whole if size > 1]:
                return np.broadcast_to(mask.reshape(whole) != 0, shape)
        raise ValueError(f"it has shape {mask.shape}, the data have {shape}")


def _chosen(path: str, columns: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The arrays `columns` as channels if all exist, else the only array, else the first existing one of `names`."""
    arrays = read_arrays(path)
    if columns and set(columns) <= arrays.keys():
        return np.concatenate([with_channels(arrays[name]) for name in columns], axis=-1)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    chosen = next((name for name in names if name in arrays), None)
    if chosen is None:
        raise ValueError(f"it holds arrays {list(arrays)}; wanted: one, or one named {', '.join(names)}")
    return arrays[chosen]
