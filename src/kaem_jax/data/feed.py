"""Chooses the minibatches of each step, and sends them to the devices."""

import dataclasses
import functools
import math

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kaem_jax.data.dataset import Labels, to_unit_interval
from kaem_jax.data.prepared import PreparedImages
from kaem_jax.devices.placement import constrain, gather, place, place_lazily
from kaem_jax.devices.transforms import STATIC

__all__ = ["Batch", "Feed", "batch_indices", "stays_on_devices"]

_MAX_RESIDENT_BYTES = 2 * 2**30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """K minibatches as the training step takes them.

    Attributes:
      stored: all examples [N, *data_shape], or the minibatches [K, B, *data_shape], in their stored dtype. If
        `data_shape` is given, each example is a flat row, [N, D] or [K, B, D]: a TPU would pad images [N, H, W, C].
      rows: int32 [K, B], rows of `stored` if it holds all examples, else None.
      indices: int32 [K, B], the index of each datum in the data set, by which persistent chains are stored.
      classes: int32 [N], the class of every datum in the data set, None if training does not use them.
      data_shape: shape of one example, to which flat rows are reshaped; None if rows are not flat.
    """

    stored: Array
    rows: Array | None
    indices: Array
    classes: Array | None = None
    data_shape: tuple[int, ...] | None = dataclasses.field(default=None, metadata=STATIC)

    @property
    def num_updates(self) -> int:
        """The number K of minibatches."""
        return self.indices.shape[0]

    def data(self, k: Array | int) -> Array:
        """Minibatch k as the model sees it, [B, *data_shape], sharded along the data axis of the mesh."""
        x = self.stored[k] if self.rows is None else self.stored[self.rows[k]]
        if self.data_shape is not None:
            x = x.reshape(len(x), *self.data_shape)
        return constrain(to_unit_interval(x), "data")

    def labels(self, k: Array | int) -> Array | None:
        """The classes of minibatch k, int32 [B], sharded along the data axis of the mesh."""
        return None if self.classes is None else constrain(self.classes[self.indices[k]], "data")


def batch_indices(step: int, *, size: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of `size` examples batch `step` holds: int32 [batch_size].

    The order is a function of the step alone, so a resumed run sees the same batches, on any number of hosts. Each
    epoch is a fresh permutation; a batch may span two epochs.
    """
    indices = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = indices // size
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        indices[inside] = _permutation(size, seed, int(epoch))[indices[inside] % size]
    return indices.astype(np.int32)


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def stays_on_devices(storage: str, num_bytes: int) -> bool:
    """Whether `data.storage` keeps training data of this size in each device's memory."""
    return storage == "device" or (storage == "auto" and num_bytes <= _MAX_RESIDENT_BYTES)


class Feed:
    """Returns the minibatches of a training step.

    If all examples are in device memory, only indices are sent. Otherwise minibatches are sent as they are stored, and
    each process reads only the part for its own devices. Sending does not wait for the devices.

    Args:
      values: [N, *data_shape] training data.
      storage: `data.storage`; `host` and `disk` differ only in what `values` reads from.
      mesh: the devices to which minibatches are sent.
      batch_size: B.
      seed: decides the order; see `batch_indices`.
      labels: reads the classes of the data, if training sees them.
    """

    def __init__(
        self,
        values: np.ndarray | PreparedImages,
        storage: str,
        mesh: Mesh,
        *,
        batch_size: int,
        seed: int,
        labels: Labels | None = None,
    ):
        resident = stays_on_devices(storage, math.prod(values.shape) * values.dtype.itemsize)
        self._values, self._mesh = values, mesh
        self._order = {"size": len(values), "batch_size": batch_size, "seed": seed}
        everything = np.arange(len(values))
        self._resident = self._everything() if resident else None
        self._classes = None if labels is None else place(labels(everything).astype(np.int32), mesh)

    def _everything(self) -> Array:
        """All data on every device, [N, D]. With several processes, each reads and decodes its share."""
        shape = len(self._values), math.prod(self._values.shape[1:])

        def rows(chosen: slice) -> np.ndarray:
            wanted = np.arange(len(self._values))[chosen]
            return (
                self._values[wanted].reshape(-1, shape[1])
                if len(wanted)
                else np.zeros((0, shape[1]), self._values.dtype)
            )

        return place(rows(slice(None)), self._mesh) if jax.process_count() == 1 else gather(shape, rows, self._mesh)

    def __call__(self, step: int, count: int = 1) -> Batch:
        """The minibatches of `count` steps: `step`, `step` + 1, ..."""
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
