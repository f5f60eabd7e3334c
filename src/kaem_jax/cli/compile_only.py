"""`kaem train --compile_only --topology v5e:4x4`: what a run needs and takes on chips that are not here."""

from typing import Any

import jax
import numpy as np

from kaem_jax.contrib.compile_only import KNOWN_DATA, Report, compile_for, find_topology
from kaem_jax.data import load_dataset
from kaem_jax.errors import ConfigError
from kaem_jax.runs.bind import bind
from kaem_jax.runs.experiment import Experiment

__all__ = ["compile_only"]


def compile_only(config: Experiment, topology: str) -> int:
    """Prints a few lines for each program of the run; returns the exit code.

    Raises:
      ConfigError: the topology is unknown, the run cannot be laid out on it, or does not fit into its memory.
    """
    jax.config.update("jax_platforms", "cpu")  # the compilers are plug-ins that would look for their hardware
    config, shape, num_train, dtype = _with_data(config)
    devices = find_topology(topology)
    print(f"{config.name} on {len(devices)} x {devices[0].device_kind}")
    for report in compile_for(config, devices, shape, num_train, dtype=dtype):
        print("\n".join(_lines(report)), flush=True)
        if report.memory > report.chip.memory:
            raise ConfigError(
                f"the {report.program} needs {report.memory / 1e9:.1f} GB on each chip, which has "
                f"{report.chip.memory / 1e9:.0f} GB: lower data.batch_size or the number of chains, or take more chips"
            )
    return 0


def _with_data(config: Experiment) -> tuple[Experiment, tuple[int, ...], int, Any]:
    """The complete configuration; shape, number and type of the training data, read only where they are not known."""
    settings = config.data
    if settings.name not in KNOWN_DATA:
        dataset = load_dataset(settings, lazy=True)
        return bind(config, dataset), dataset.data_shape, len(dataset.train), dataset.train.dtype
    shape, num_train = KNOWN_DATA[settings.name]
    if settings.image_size:
        shape = (settings.image_size, settings.image_size, shape[-1])
    left = num_train - (settings.validation_size if settings.held_out == "validation" else 0)
    return config, shape, min(settings.num_train or left, left), np.uint8


def _lines(report: Report) -> list[str]:
    cost, chip, mib = report.cost, report.chip, 2**20
    sent = ", ".join(f"{found.times} x {found.kind} of {found.num_bytes / 1024:.1f} KiB" for found in cost.collectives)
    work = f"{cost.flops / 1e9:.2f} GFLOP of products"
    if cost.cycles and chip.clock:
        seconds = cost.cycles / chip.clock
        share = cost.flops / chip.flops / seconds
        work += f", {1e3 * seconds:.2f} ms by XLA's own schedule: {share:.1%} of the peak ({chip.source})"
    return [
        f"{report.program}: compiled in {report.seconds:.0f} s",
        f"  memory: {report.memory / mib:.1f} MiB of {chip.memory / mib:.0f}"
        f"{'' if report.is_donated else '; the state is COPIED'}",
        f"  work: {work}",
        f"  messages: {sent or 'none'}",
    ]
