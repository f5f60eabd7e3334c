"""What a data set is to the rest of the program."""

import dataclasses
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["DataError", "Dataset", "Images", "to_unit_interval"]


class DataError(ValueError):
    """Data that cannot be had or read; the message says where it was looked for and how to get it."""


class Images(Protocol):
    """Examples of one shape, read in any order: a NumPy array, or a reader that decodes what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *data_shape]."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8 for pixels 0..255, else float32."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The examples at `indices` [B], in that order: [B, *data_shape]."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set on the host.

    Attributes:
      train: [N, *data_shape]; uint8 pixels, or float32 in [0, 1].
      test: [N', *data_shape] of the same kind, never trained on.
    """

    train: Images
    test: np.ndarray

    @property
    def data_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])


def to_unit_interval(x: Array) -> Array:
    """Examples as the model sees them, of the default float in [0, 1]: uint8 is divided by 255, on the device."""
    if x.dtype == jnp.uint8:
        return x.astype(jnp.result_type(float)) / 255
    return x
