"""Joins the processes of a job."""

import os

import jax

from kaem_jax.errors import ConfigError, first_line

_NUM_CPU_DEVICES = "jax_num_cpu_devices"  # a setting that jax does not declare to type checkers
_THREADS_OF_DEVICE = 4  # where a CPU is split into several; with one thread for each, factorisations wait for ever
# Set where a launcher has started several processes: srun, mpirun, several TPU slices. GKE lists the hosts of a TPU
# slice; elsewhere jax asks the metadata server of the Cloud TPU VM that it finds itself on.
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
_TPU_WORKERS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


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
