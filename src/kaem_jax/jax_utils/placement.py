"""Places arrays on the devices of a mesh.

Parameters are on every device; the compiler places the rest according to the few constraints made here.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def replicated(mesh: Mesh) -> NamedSharding:
    """A sharding with the same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(value: np.ndarray, mesh: Mesh, *axes: str | None) -> Array:
    """Shards `value`, which every process has, with its leading dimensions along `axes` of the mesh."""
    return place_lazily(value.shape, value.__getitem__, mesh, *axes)


def place_lazily(
    shape: tuple[int, ...], part: Callable[[Any], np.ndarray], mesh: Mesh, *axes: str | tuple[str, ...] | None
) -> Array:
    """An array of which each process makes the blocks of its own devices.

    Args:
      shape: shape of the whole array.
      part: returns the block at a tuple of slices.
      axes: axes of the mesh for each leading dimension; None for one that is not distributed.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    blocks = sharding.addressable_devices_indices_map(shape)
    parts = [jax.device_put(part(block), device) for device, block in blocks.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def gather(shape: tuple[int, ...], part: Callable[[slice], np.ndarray], mesh: Mesh) -> Array:
    """The same array on every device. Each process makes its share, `part(slice)`; devices exchange these rows."""
    num_rows = -(-shape[0] // mesh.size) * mesh.size

    def padded(block: tuple[slice, ...]) -> np.ndarray:
        rows = part(slice(*block[0].indices(shape[0])))
        return np.pad(rows, ((0, num_rows // mesh.size - len(rows)), *[(0, 0)] * (rows.ndim - 1)))

    spread = place_lazily((num_rows, *shape[1:]), padded, mesh, mesh.axis_names)
    return jax.jit(lambda rows: rows[: shape[0]], out_shardings=replicated(mesh))(spread)


def constrain(x: Any, *axes: str | tuple[str, ...] | None) -> Any:
    """Shards the leading dimensions of `x` along `axes`, inside jit under a mesh; elsewhere `x` stays where it is.

    A tuple shards a dimension along several axes, which need not divide it: the compiler pads, and values do not depend
    on the mesh. Axes that the mesh lacks, or that are manual (shard_map, pmap), are ignored. Without axes, `x` is
    replicated.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    placed = {name for name, kind in kinds if kind == AxisType.Auto}
    if not isinstance(x, jax.core.Tracer) or mesh.manual_axes or not placed:
        return x
    wanted = [((axis,) if isinstance(axis, str) else axis or ()) for axis in axes[: x.ndim]]
    names = [tuple(name for name in dimension if name in placed) for dimension in wanted]
    if axes and not any(names):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*names))


def is_spread() -> bool:
    """Whether the compiler spreads arrays over several devices here."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and not mesh.manual_axes and AxisType.Auto in mesh.axis_types
