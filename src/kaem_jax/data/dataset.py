"""The form in which the rest of the program sees a data set."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.data.form import PIXELS, Form, Pixels
from kaem_jax.errors import DataError

__all__ = [
    "Dataset",
    "Examples",
    "Labels",
    "Parts",
    "Source",
    "are_pictures",
    "as_seen",
    "is_image",
    "refuse_bytes_of_bits",
    "to_pixels",
    "to_unit_interval",
]

_NUM_FINGERPRINTED = 64

Labels = Callable[[np.ndarray], np.ndarray]  # indices [B] -> integer labels [B], read when they are asked for


class Source(Protocol):
    """Examples of one shape, read in any order: a NumPy array, or a reader that decodes what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *data_shape]."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8 for pixels 0..255, int32 for tokens, else float32."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The examples at `indices` [B], in that order: [B, *data_shape]."""
        ...


@dataclasses.dataclass(frozen=True)
class _Selected:
    """Some of the examples of a reader, still decoded only when they are asked for."""

    values: Source
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.values[self.rows[indices]]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Data with their labels, where they have any."""

    values: Source
    labels: Labels | None = None

    def take(self, indices: np.ndarray, *, lazy: bool = False) -> "Examples":
        """The examples at `indices`: in memory or, if `lazy`, where they are; labels are always read late."""
        labels = self.labels
        values = _Selected(self.values, indices) if lazy else self.values[indices]
        return Examples(values, labels and (lambda rows: labels(indices[rows])))


class Parts(NamedTuple):
    """What a loader finds: the parts of a data set, in memory or on disk, and how they become what a user knows.

    Attributes:
      train, test: which training learns from, and which it never sees.
      form: see `Dataset`.
      validation: a part of its own for choosing settings, where there is a file for it.
    """

    train: Examples
    test: Examples
    form: Form = PIXELS
    validation: Examples | None = None


class Opened(NamedTuple):
    """A data set whose files are read, and of which nothing is learned yet.

    Attributes:
      num_train: number of training data.
      learn: gives the parts; the training rows that it takes decide scales, categories and tokens.
      has_validation: whether there is a file of validation data; else they may be some of the training data.
    """

    num_train: int
    learn: Callable[[np.ndarray], Parts]
    has_validation: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set on the host.

    Attributes:
      train: [N, *data_shape]; uint8 pixels; float32: pixels in [0, 1], or standardised values, NaN where a table has
        none; or int32 tokens of texts.
      held_out: [N', *data_shape] of the same kind, never trained on: the test split, or the validation split.
      train_labels, held_out_labels: their classes, None where there are none. The model never sees them.
      form: how they become what a user knows.
    """

    train: Source
    held_out: np.ndarray
    train_labels: Labels | None = None
    held_out_labels: Labels | None = None
    form: Form = PIXELS

    @property
    def data_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    def fingerprint(self) -> int:
        """CRC-32 of the number, shape and type of the training data and of some of them: other data have another."""
        return _fingerprint(self.train)

    def held_out_fingerprint(self) -> int:
        """The same of the held-out data."""
        return _fingerprint(self.held_out)

    @property
    def is_labelled(self) -> bool:
        """Whether both parts have classes, and the training data more than one."""
        if self.train_labels is None or self.held_out_labels is None:
            return False
        some = np.unique(np.linspace(0, len(self.train) - 1, _NUM_FINGERPRINTED).astype(int))  # nearly always enough
        return any(np.unique(self.train_labels(rows)).size > 1 for rows in (some, np.arange(len(self.train))))


def _fingerprint(values: Source) -> int:
    rows = np.unique(np.linspace(0, len(values) - 1, _NUM_FINGERPRINTED).astype(int))
    described = f"{values.shape} {values.dtype}".encode()
    return zlib.crc32(np.ascontiguousarray(values[rows]).tobytes(), zlib.crc32(described))


def as_seen(values: np.ndarray) -> np.ndarray:
    """Data as the model sees them, on the host: see `to_unit_interval`."""
    return np.asarray(to_unit_interval(jnp.asarray(values)))


def refuse_bytes_of_bits(what: str, x: np.ndarray) -> None:
    """Raises a DataError for uint8 examples of 0 and 1, of which `to_unit_interval` would make 0 and 0.004."""
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise DataError(
            f"{what} holds uint8 values 0 and 1, which would be divided by 255: give truth values (bool), floats, or "
            "0 and 255"
        )


def to_unit_interval(x: Array) -> Array:
    """Examples as the model sees them: uint8 is divided by 255, on the device, and anything else stays as it is."""
    if x.dtype == jnp.uint8:
        return x.astype(jnp.result_type(float)) / 255
    return x


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be shown: [H, W], [H, W, 1] or [H, W, 3]."""
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def are_pictures(form: Form, shape: tuple[int, ...]) -> bool:
    """Whether data of this form and shape can be shown as pictures; continuous fields have figures of their own."""
    return isinstance(form, Pixels) and is_image(shape)


def to_pixels(x: np.ndarray) -> np.ndarray:
    """Examples as image files hold them: uint8 [N, H, W, C], values of [0, 1] rounded to 255ths.

    Raises:
      ValueError: `x` is not [N, H, W] or [N, H, W, C] with C 1 or 3.
    """
    if not is_image(x.shape[1:]):
        raise ValueError(f"data of shape {x.shape[1:]} are not images; wanted: [H, W], [H, W, 1] or [H, W, 3]")
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype == np.uint8:
        return x
    return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)
