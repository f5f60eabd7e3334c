"""Continuous fields, such as solutions of differential equations, in users' .npz files."""

from collections.abc import Sequence

import numpy as np

from kaem_jax.data.dataset import Examples, Opened, Parts
from kaem_jax.data.form import Field
from kaem_jax.data.npz import read_arrays
from kaem_jax.data.own import split
from kaem_jax.errors import DataError

__all__ = ["WHOLE", "open_field", "with_channels"]

WHOLE = ("fields", "y", "x", "data", "images")


def open_field(path: str, *, test_fraction: float, seed: int, columns: Sequence[str]) -> Opened:
    """Train and test fields of an .npz file, which are standardised by the rows that are trained on.

    The file has arrays `train` and `test`, or one array named `fields`, `y`, `x`, `data` or `images`, that is split:
    [N, H, W], [N, H, W, C] or [N, D] finite numbers of any range, or truth values. Fields [H, W] get one channel.

    Args:
      path: the file.
      test_fraction: of a file that is split.
      seed: of the split.
      columns: names of the arrays to take instead; several become channels, such as coefficient and solution.

    Raises:
      DataError: the file is missing or unreadable, or holds something else.
    """
    arrays, found = read_arrays(path)
    if missing := [name for name in columns if name not in arrays]:
        raise DataError(f"data.columns: {missing[0]!r} is not an array of data.path={path!r}, which holds {found}")
    if len(set(columns)) < len(columns):
        raise DataError(f"data.columns={tuple(columns)} names an array twice")
    if columns:
        channels = [_checked(arrays[name], path) for name in columns]
        if len({channel.shape[:-1] for channel in channels}) > 1:
            raise DataError(
                f"data.columns={tuple(columns)}: arrays of different shapes cannot be channels of one field"
            )
        train, test = split(Examples(np.concatenate(channels, axis=-1)), test_fraction, seed)
    elif {"train", "test"} <= arrays.keys():
        parts = [_checked(arrays[name], path) for name in ("train", "test")]
        if parts[0].shape[1:] != parts[1].shape[1:]:
            raise DataError(
                f"data.path={path!r} holds train of shape {parts[0].shape} and test of shape {parts[1].shape}; "
                "fields of both must have one shape"
            )
        train, test = (Examples(part) for part in parts)
    else:
        name = next((name for name in WHOLE if name in arrays), None)
        if name is None:
            raise DataError(f"data.path={path!r} holds arrays {found}; wanted: train and test, or {', '.join(WHOLE)}")
        train, test = split(Examples(_checked(arrays[name], path)), test_fraction, seed)

    def learn(rows: np.ndarray) -> Parts:
        form = Field.of(np.asarray(train.values)[rows])
        encoded = [Examples(form.encode(np.asarray(part.values))) for part in (train, test)]
        return Parts(encoded[0], encoded[1], form)

    return Opened(len(train.values), learn)


def with_channels(values: np.ndarray) -> np.ndarray:
    """Fields [N, H, W] with an axis of one channel; truth values, such as which of two materials it is, as numbers."""
    values = values.astype(np.float32) if values.dtype == bool else values
    return values[..., None] if values.ndim == 3 else values


def _checked(values: np.ndarray, path: str) -> np.ndarray:
    values, given = with_channels(values), values
    if values.ndim not in (2, 4) or not values.size or values.dtype.kind not in "uif":
        raise DataError(
            f"data.path={path!r} holds an array of shape {given.shape} and type {given.dtype}; wanted: numbers "
            "[N, H, W], [N, H, W, C] or [N, D]"
        )
    if not np.isfinite(values).all():
        raise DataError(f"data.path={path!r} holds {np.sum(~np.isfinite(values))} values that are not finite")
    return values
