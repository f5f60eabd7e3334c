"""Batches on their way to the device."""

import math

import jax
import numpy as np
from jax import Array

from kaem_jax.data.dataset import Images

__all__ = ["Feed"]

_MAX_RESIDENT_BYTES = 2 * 2**30


class Feed:
    """Hands out batches as (data, rows): the examples of a batch are data[rows].

    Where all examples lie in device memory, `data` is all of them, and nothing but indices is sent. Else it is just
    the batches asked for, as they are stored: uint8 pixels travel as such. Sending does not wait for the device, which
    works on the last call meanwhile.
    """

    def __init__(self, images: Images, storage: str):
        size = math.prod(images.shape) * images.dtype.itemsize
        resident = storage == "device" or (storage == "auto" and size <= _MAX_RESIDENT_BYTES)
        self._images = images
        self._resident = jax.device_put(images[np.arange(len(images))]) if resident else None

    def __call__(self, indices: np.ndarray) -> tuple[Array, Array]:
        """Data [N, *data_shape] and int32 rows of the shape of `indices` [K, B], on the device."""
        if self._resident is not None:
            return self._resident, jax.device_put(indices)
        rows = np.arange(indices.size, dtype=np.int32).reshape(indices.shape)
        return jax.device_put((self._images[indices.ravel()], rows))
