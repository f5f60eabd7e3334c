"""The mesh of a run: axes `data` (the minibatch) and `temp` (the rungs of a tempered population)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from kaem_jax.errors import ConfigError
from kaem_jax.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel(Settings):
    """Numbers of devices along the axes of the mesh; -1 for one of them takes all that are left.

    Attributes:
      data: number of devices along the minibatch.
      temp: number of devices along the rungs of a tempered posterior; 0: as few as let the minibatch fill the others.
    """

    data: int = setting(-1, low=-1)
    temp: int = setting(0, low=-1)


def make_mesh(settings: Parallel, batch_size: int, num_temperatures: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `data` x `temp` devices: all of them, or fewer if both sizes are given in a single process.

    Raises a ConfigError if the sizes do not fit the devices, or do not divide the data or rungs along their axis.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data, temp = settings.data, settings.temp
    if temp == 0:
        sizes = range(1, num_temperatures + 1) if data == -1 else ()
        fitting = (t for t in sizes if num_temperatures % t == count % t == batch_size % max(count // t, 1) == 0)
        temp = next(fitting, 1)
    if data == -1:
        data = count // max(temp, 1)
    elif temp == -1:
        temp = count // max(data, 1)
    takes_all = jax.process_count() > 1 or -1 in (settings.data, settings.temp)
    if not 0 < data * temp <= count or (data * temp < count and takes_all):
        raise ConfigError(
            f"parallel.data={settings.data} times parallel.temp={settings.temp} must be {count}, the number of "
            "devices: -1 for one of them takes what is left"
        )
    for name, size, axis, parts in (
        ("data.batch_size", batch_size, "parallel.data", data),
        ("posterior.num_temperatures", num_temperatures, "parallel.temp", temp),
    ):
        if size % parts:
            raise ConfigError(
                f"{name}={size} must be a multiple of {parts}, the devices along {axis} ({count} devices in all)"
            )
    slices: dict[int, list[Any]] = {}  # of a TPU pod; on other chips there is one
    for device in devices[: data * temp]:
        slices.setdefault(getattr(device, "slice_index", 0), []).append(device)
    if data % len(slices):
        raise ConfigError(
            f"parallel.data={data} must be a multiple of {len(slices)}, the slices: rungs exchange too often for the "
            "network between them"
        )
    shape = (data // len(slices), temp)
    # A physical axis may have to be split between two mesh axes, as for a mesh of 8 x 2 on 4 x 4 chips.
    grids = [mesh_utils.create_device_mesh(shape, own, allow_split_physical_axes=True) for own in slices.values()]
    return Mesh(np.concatenate(grids), ("data", "temp"), (AxisType.Auto,) * 2)
