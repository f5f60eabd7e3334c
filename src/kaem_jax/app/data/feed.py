"""Chooses the minibatches of each step, and sends them to the devices."""

import math

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kaem_jax.app.data.dataset import Labels
from kaem_jax.app.data.prepared import PreparedImages
from kaem_jax.jax_utils.placement import gather, place, place_lazily
from kaem_jax.training.batch import Batch, batch_indices

_MAX_RESIDENT_BYTES = 2 * 2**30


def stays_on_devices(storage: str, num_bytes: int) -> bool:
    """Whether `data.storage` keeps training data of this size in device memory."""
    return storage == "device" or (storage == "auto" and num_bytes <= _MAX_RESIDENT_BYTES)


class Feed:
    """Returns the minibatches of a training step, in an order that `seed` decides; see `batch_indices`.

    If all examples are in device memory, only indices are sent. Otherwise each process reads and sends the part for its
    own devices. `labels` reads classes, if training sees them.
    """

    def __init__(
        self, values: np.ndarray | PreparedImages, storage: str, mesh: Mesh, *, batch_size: int, seed: int,
        labels: Labels | None = None,
    ):  # fmt: skip
        resident = stays_on_devices(storage, math.prod(values.shape) * values.dtype.itemsize)
        self._values, self._mesh = values, mesh
        self._order = {"size": len(values), "batch_size": batch_size, "seed": seed}
        self._resident = self._everything() if resident else None
        self._classes = None if labels is None else place(labels(np.arange(len(values))).astype(np.int32), mesh)

    def _everything(self) -> Array:
        """All data on every device, [N, D]. With several processes, each reads its share."""
        values, size, width = self._values, len(self._values), math.prod(self._values.shape[1:])

        def rows(chosen: slice) -> np.ndarray:
            wanted = np.arange(size)[chosen]
            return values[wanted].reshape(-1, width) if len(wanted) else np.zeros((0, width), values.dtype)

        if jax.process_count() == 1:
            return place(rows(slice(None)), self._mesh)
        return gather((size, width), rows, self._mesh)

    def __call__(self, step: int, count: int = 1) -> Batch:
        """The minibatches of `count` steps from `step` on."""
        indices = np.stack([batch_indices(step + k, **self._order) for k in range(count)])
        placed = place(indices, self._mesh, None, "data")
        if self._resident is not None:
            return Batch(self._resident, placed, placed, self._classes, self._values.shape[1:])

        def part(slices: tuple[slice, ...]) -> np.ndarray:
            wanted = indices[slices[:2]]
            return self._values[wanted.ravel()].reshape(*wanted.shape, -1)

        shape = (*indices.shape, math.prod(self._values.shape[1:]))
        sent = place_lazily(shape, part, self._mesh, None, "data")
        return Batch(sent, None, placed, self._classes, self._values.shape[1:])
