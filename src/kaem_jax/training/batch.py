"""The minibatches of a training step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.errors import DataError
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """K minibatches as the training step takes them.

    Attributes:
      stored: all examples [N, *data_shape], or the minibatches [K, B, *data_shape], in their stored dtype; flat rows
        [N, D] or [K, B, D] if `data_shape` is given, since a TPU would pad images.
      rows: int32 [K, B], rows of `stored` if it holds all examples, else None.
      indices: int32 [K, B], the index of each datum in the data set, by which persistent chains are stored.
      classes: int32 [N], the class of every datum in the data set, None if training does not use them.
      data_shape: static, the shape of one example, None if rows are not flat.
    """

    stored: Array
    rows: Array | None
    indices: Array
    classes: Array | None = None
    data_shape: tuple[int, ...] | None = dataclasses.field(default=None, metadata=STATIC)

    @property
    def num_updates(self) -> int:
        return self.indices.shape[0]

    def data(self, k: Array | int) -> Array:
        """Minibatch k as the model sees it, [B, *data_shape], sharded along the data axis of the mesh."""
        x = self.stored[k] if self.rows is None else self.stored[self.rows[k]]
        if self.data_shape is not None:
            x = x.reshape(len(x), *self.data_shape)
        return constrain(to_unit_interval(x), "data")

    def labels(self, k: Array | int) -> Array | None:
        return None if self.classes is None else constrain(self.classes[self.indices[k]], "data")


def batch_indices(step: int, *, size: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of `size` examples batch `step` holds: int32 [batch_size].

    A function of the step alone, so that a resumed run sees the same batches, on any number of hosts. Each epoch is a
    fresh permutation; a batch may span two epochs.
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


def as_seen(values: np.ndarray) -> np.ndarray:
    """`to_unit_interval` on the host."""
    return np.asarray(to_unit_interval(jnp.asarray(values)))


def refuse_bytes_of_bits(what: str, x: np.ndarray) -> None:
    """Raises a DataError for uint8 examples of 0 and 1, which `to_unit_interval` would turn into 0 and 0.004."""
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise DataError(f"{what} holds uint8 values 0 and 1, which would be divided by 255: give bool, or 0 and 255")


def to_unit_interval(x: Array) -> Array:
    """Examples as the model sees them: uint8 is divided by 255, other dtypes are unchanged."""
    return x.astype(jnp.result_type(float)) / 255 if x.dtype == jnp.uint8 else x
