"""A data set on the host, and what values of pixels mean."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np

from kaem_jax.app.data.forms import PIXELS, Form, Pixels
from kaem_jax.app.data.prepared import PreparedImages

_NUM_LOOKED_AT = 64

Labels = Callable[[np.ndarray], np.ndarray]  # indices [B] -> integer labels [B], read when they are asked for


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set on the host.

    Attributes:
      train: [N, *data_shape]: uint8 pixels; float32 pixels in [0, 1], or standardised values with NaN for empty cells;
        or int32 tokens. `PreparedImages` decode examples on access.
      held_out: [N', *data_shape], never trained on: the test split, or the validation split.
      train_labels, held_out_labels: their classes, None if there are none.
      form: converts values to the user's units.
    """

    train: np.ndarray | PreparedImages
    held_out: np.ndarray
    train_labels: Labels | None = None
    held_out_labels: Labels | None = None
    form: Form = PIXELS

    @property
    def data_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    def fingerprint(self) -> int:
        """CRC-32 of the training data's shape, dtype and 64 examples."""
        return _fingerprint(self.train)

    def held_out_fingerprint(self) -> int:
        return _fingerprint(self.held_out)

    @property
    def is_labelled(self) -> bool:
        """Whether both parts have classes, and 64 training examples show more than one."""
        if self.train_labels is None or self.held_out_labels is None:
            return False
        return np.unique(self.train_labels(_some_rows(len(self.train)))).size > 1


def _some_rows(size: int) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, _NUM_LOOKED_AT).astype(int))


def _fingerprint(values: np.ndarray | PreparedImages) -> int:
    rows = _some_rows(len(values))
    described = f"{values.shape} {values.dtype}".encode()
    return zlib.crc32(np.ascontiguousarray(values[rows]).tobytes(), zlib.crc32(described))


def are_pictures(form: Form, shape: tuple[int, ...]) -> bool:
    """Whether data of this form and shape can be shown: pixels [H, W], [H, W, 1] or [H, W, 3]."""
    return isinstance(form, Pixels) and (len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3)))


def to_pixels(x: np.ndarray) -> np.ndarray:
    """Images as files hold them: uint8 [N, H, W, C], values of [0, 1] rounded to 255ths."""
    x = x[..., None] if x.ndim == 3 else x
    return x if x.dtype == np.uint8 else np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)
