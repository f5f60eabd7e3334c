"""What lies where: the placement of arrays on the devices of a mesh.

Parameters are on every device; the compiler places the rest according to the few constraints made here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = ["constrain", "place", "place_lazily", "replicated"]


def replicated(mesh: Mesh) -> NamedSharding:
    """A sharding with the same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(value: np.ndarray, mesh: Mesh, *axes: str | None) -> Array:
    """`value`, which every process has, as one array with its dimensions along `axes` of the mesh."""
    return place_lazily(value.shape, value.__getitem__, mesh, *axes)


def place_lazily(shape: tuple[int, ...], part: Callable[[Any], np.ndarray], mesh: Mesh, *axes: str | None) -> Array:
    """An array of which each process makes only what its own devices hold.

    Args:
      shape: shape of the whole array.
      part: returns the block at a tuple of slices.
      axes: axis of the mesh for each leading dimension; None for a dimension that is not distributed.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    blocks = sharding.addressable_devices_indices_map(shape)
    parts = [jax.device_put(part(block), device) for device, block in blocks.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def constrain(x: Any, *axes: str | tuple[str, ...] | None) -> Any:
    """Inside jit under a mesh: lays the leading dimensions of array `x` along `axes`. Elsewhere it returns `x`.

    Arrays of an eager caller stay where the caller put them.

    A tuple lays a dimension along several axes. Axes that the current mesh does not have, or that the compiler does
    not place (inside shard_map or pmap), are ignored. Of several axes that do not divide a dimension the last are left
    out; a dimension that none divides is left to the compiler. No axes at all means the same on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    named = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    sizes = {name: size for name, size, kind in named if kind == AxisType.Auto}
    if not isinstance(x, jax.core.Tracer) or mesh.manual_axes or not sizes:
        return x
    placed = [_that_divide(size, axis, sizes) for size, axis in zip(x.shape, axes, strict=False)]
    if axes and all(where in (None, PartitionSpec.UNCONSTRAINED) for where in placed):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*placed))


def _that_divide(length: int, axis: str | tuple[str, ...] | None, sizes: Mapping[str, int]) -> Any:
    """The entry of a spec: of the axes that a dimension should lie along those of the mesh that divide its length."""
    names = tuple(name for name in ((axis,) if isinstance(axis, str) else axis or ()) if name in sizes)
    some = names
    while some and length % math.prod(sizes[name] for name in some):
        some = some[:-1]
    return some or (PartitionSpec.UNCONSTRAINED if names else None)
