"""Joins the processes of a job, and arranges all their devices along the minibatch and the rungs of a population."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from kaem_jax.errors import ConfigError, first_line
from kaem_jax.settings import Settings, setting

_NUM_CPU_DEVICES = "jax_num_cpu_devices"  # a setting that jax does not declare to type checkers
_THREADS_OF_DEVICE = 4  # of each device of a split CPU; with one thread each, factorisations deadlock
# Set where a launcher has started several processes: srun, mpirun, several TPU slices. GKE lists the hosts of a TPU
# slice; elsewhere jax asks the metadata server of the Cloud TPU VM that it finds itself on.
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
_TPU_WORKERS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel(Settings):
    """Numbers of devices along the axes of the mesh; -1 for one of them takes all that are left.

    Attributes:
      data: number of devices along the minibatch.
      temp: devices along the rungs of a tempered posterior; 0: the fewest for which the rest divide the minibatch.
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


def initialize(address: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the job that a launcher has started, or that the arguments describe, if there are several processes.

    Call it before anything asks for devices. A CPU that is split into devices (JAX_NUM_CPU_DEVICES) gets several
    threads per device: a factorisation blocks a thread, and with one thread per device they deadlock.
    """
    given = (address, num_processes, process_id)
    if address is not None and not address.rpartition(":")[2].isdecimal():
        raise ConfigError(f"--coordinator_address={address} must be host:port of process 0")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ConfigError(f"--process_id={process_id} must be from 0 to --num_processes={num_processes} minus 1")
    if (num_devices := getattr(jax.config, _NUM_CPU_DEVICES)) > 1:
        os.environ.setdefault("NPROC", str(_THREADS_OF_DEVICE * num_devices))  # XLA reads it when the devices are made
    launched = any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHERS) or _is_tpu_slice()
    if given != (None, None, None) or launched:
        try:
            jax.distributed.initialize(*given)
        except ValueError as error:  # of a launcher that jax does not know, or since one of the three is missing
            raise ConfigError(
                f"the processes of this job do not find each other ({first_line(error)}); give --coordinator_address "
                "host:port of process 0, --num_processes and --process_id to each; with Open MPI these are "
                "$OMPI_COMM_WORLD_SIZE and $OMPI_COMM_WORLD_RANK"
            ) from None


def _is_tpu_slice() -> bool:
    """Whether this may be one host of several in a TPU slice. On a TPU host jax sets TPU_ML_PLATFORM when imported."""
    if hosts := [os.environ[name] for name in _TPU_WORKERS if name in os.environ]:
        return any("," in listed for listed in hosts)
    return os.environ.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in os.environ
