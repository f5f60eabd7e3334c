"""Batches on their way to the devices."""

import math

import numpy as np
from jax import Array
from jax.sharding import Mesh

from kaem_jax.data.dataset import Images
from kaem_jax.parallel import place, place_lazily

__all__ = ["Feed"]

_MAX_RESIDENT_BYTES = 2 * 2**30


class Feed:
    """Hands out batches as (data, rows): those of the examples data[rows].

    Where all examples lie in device memory, `data` is all of them, and nothing but indices is sent. Else it is just
    the batches, as they are stored (uint8 pixels travel as such), of which each process reads what its own devices
    get, and `rows` is None. Sending does not wait for the devices, which work on the last call meanwhile.
    """

    def __init__(self, images: Images, storage: str, mesh: Mesh):
        size = math.prod(images.shape) * images.dtype.itemsize
        resident = storage == "device" or (storage == "auto" and size <= _MAX_RESIDENT_BYTES)
        self._images, self._mesh = images, mesh
        self._resident = place(images[np.arange(len(images))], mesh) if resident else None

    def __call__(self, indices: np.ndarray) -> tuple[Array, Array | None]:
        """For indices [K, B]: all data [N, *data_shape] and rows [K, B], or batches [K, B, *data_shape] and None."""
        if self._resident is not None:
            return self._resident, place(indices, self._mesh, None, "data")

        def part(slices: tuple[slice, ...]) -> np.ndarray:
            wanted = indices[slices[:2]]
            return self._images[wanted.ravel()].reshape(*wanted.shape, *self._images.shape[1:])

        return place_lazily((*indices.shape, *self._images.shape[1:]), part, self._mesh, None, "data"), None
