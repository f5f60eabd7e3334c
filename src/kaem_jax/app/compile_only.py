"""Compiles a run for chips that are not here, and says what it will cost there."""

import functools
import importlib.resources
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kaem_jax.app.data import load_dataset
from kaem_jax.app.data.feed import stays_on_devices
from kaem_jax.app.devices.chips import CHIPS, Chip
from kaem_jax.app.devices.mesh import make_mesh
from kaem_jax.app.devices.program import Cost, measure
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.jax_utils.placement import replicated
from kaem_jax.keys import run_keys
from kaem_jax.training.batch import Batch
from kaem_jax.training.stage import state_after

PROGRAMS = ("step", "evaluation")
# Shape and number of training data of prepared data sets, which need not be here.
KNOWN_DATA = {
    "celeb_a": ((64, 64, 3), 162_770),
    "cifar10": ((32, 32, 3), 50_000),
    "fashion_mnist": ((28, 28, 1), 60_000),
    "mnist": ((28, 28, 1), 60_000),
    "svhn_cropped": ((32, 32, 3), 73_257),
}
_GPU = "h100"
_LARGEST = {"v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256}  # chips of a slice, by https://cloud.google.com/tpu/docs
# With these, libtpu does not ask the network which machine this is, and other processes may compile at the same time.
_NO_HARDWARE = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost"}


class Report(NamedTuple):
    """One program: its name, seconds of compilation here, peak bytes per chip, and its cost per chip."""

    program: str
    seconds: float
    memory: int
    cost: Cost


def compile_only(config: Experiment, topology: str, programs: Sequence[str] = ("step",)) -> int:
    """Compiles some of the `PROGRAMS` of the run, and prints a few lines on each; returns the exit code.

    Raises:
      ConfigError: the topology is unknown, the run cannot be laid out on it, or does not fit into its memory.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # its seconds are those of a first compilation
    jax.config.update("jax_platforms", "cpu")  # the compilers are plug-ins that would look for their hardware
    devices = find_topology(topology)
    print(f"{config.name} on {len(devices)} x {devices[0].device_kind}")
    config, *data = with_data(config)
    for program in programs:
        for stage in range(len(config.all_stages) if program == "step" else 1):
            report = compile_for(config, devices, program, *data, stage=stage)
            print(described(report, CHIPS.get(devices[0].device_kind)), flush=True)
    return 0


def with_data(config: Experiment) -> tuple[Experiment, tuple[int, ...], int, Any]:
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


def described(report: Report, chip: Chip | None) -> str:
    """A few lines on a program.

    Raises:
      ConfigError: it does not fit into the chip's memory.
    """
    cost, room, share = report.cost, "", ""
    if chip:
        room = f" of {chip.memory / 2**20:.0f}"
    if chip and chip.clock and cost.cycles:
        seconds = cost.cycles / chip.clock
        peak = f"{cost.flops / chip.flops / seconds:.1%} of the peak ({chip.source})"
        most = "; ".join(f"{cycles / cost.cycles:.0%} {_short(name)}" for name, cycles in cost.parts.most_common(3))
        share = f", {1e3 * seconds:.2f} ms by XLA's own schedule: {peak}\n  most cycles: {most}"
    sent = []
    for kind in dict.fromkeys(found.kind for found in cost.collectives):
        same = [found for found in cost.collectives if found.kind == kind]
        total = sum(found.times * found.num_bytes for found in same)
        how = "asynchronous" if all(found.is_asynchronous for found in same) else "synchronous"
        sent.append(f"{sum(found.times for found in same)} x {kind}, {total / 1024:.1f} KiB together, {how}")
    if chip and report.memory > chip.memory:
        raise ConfigError(
            f"the {report.program} needs {report.memory / 1e9:.1f} GB on each chip, which has {chip.memory / 1e9:.0f} "
            "GB: lower data.batch_size or the number of chains, or take more chips"
        )
    return (
        f"{report.program}: compiled in {report.seconds:.0f} s\n  memory: {report.memory / 2**20:.1f} MiB{room}\n"
        f"  work: {cost.flops / 1e9:.2f} GFLOP of products{share}\n  messages: {'; '.join(sent) or 'none'}"
    )


def _short(name: str) -> str:
    """The scope of an operation, the function around it, and its primitive."""
    outer, *inner = [part for part in name.split("/") if part not in ("closed_call", "jit(train_step)")]
    return " ".join([outer, *inner[-2:]])


def find_topology(name: str) -> list[Any]:
    """The devices of a topology, such as `v5e:4x4`, `v6e:16x16` or `h100:8`, none of which need be here.

    Raises:
      ConfigError: the name is not known, there is no slice of this size, or its compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    for setting, value in _NO_HARDWARE.items():
        os.environ.setdefault(setting, value)
    try:
        if kind == _GPU:
            return list(_gpus(int(shape or 1)))
        devices = list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # of the plug-in, which raises several types
        raise ConfigError(
            f"--topology {name!r} cannot be compiled for here ({first_line(error)[:200]}); known are v4, v5e, "
            "v5p and v6e with a shape, as v5e:4x4, and h100:8; the compilers are in the extra `pods`: pip install "
            "-e '.[pods]' in the clone"
        ) from None
    if len(devices) > (most := _LARGEST.get(kind, len(devices))):
        raise ConfigError(f"--topology {name!r} has {len(devices)} chips, and a slice of {kind} has at most {most}")
    return devices


def _gpus(count: int) -> Any:
    target = importlib.resources.files("kaem_jax.app.devices").joinpath("h100.txtpb").read_text()
    return topologies.get_topology_desc(platform="cuda", target_config=target, topology=f"1x1x{count}").devices


def compile_for(
    config: Experiment,
    devices: Sequence[Any],
    program: str,
    data_shape: tuple[int, ...],
    num_train: int,
    dtype: Any,
    *,
    stage: int = 0,
) -> Report:
    """Compiles a program for `devices`, for data as `with_data` describes them, and the step for one of the stages.

    Raises:
      ConfigError: the run cannot be laid out on so many devices.
    """
    mesh = make_mesh(config.parallel, config.data.batch_size, config.num_rungs, devices)
    is_gpu = devices[0].platform in ("cuda", "gpu")  # which tries programs out, where there is one
    with jax.set_mesh(mesh):
        lowered = _lower(config, mesh, data_shape, num_train, program, dtype, stage)
        started = time.perf_counter()
        compiled = lowered.compile({"xla_gpu_autotune_level": "0"} if is_gpu else {})
    memory: Any = compiled.memory_analysis()
    seconds = time.perf_counter() - started
    if program == "step" and config.stages:
        program = f"step of stage {stage + 1}"
    return Report(program, seconds, memory.peak_memory_in_bytes, measure(compiled.as_text() or ""))


def _lower(
    config: Experiment,
    mesh: Mesh,
    data_shape: tuple[int, ...],
    num_train: int,
    program: str,
    dtype: Any,
    stage: int = 0,
) -> jax.stages.Lowered:
    """Lowers the program for abstract arguments, of which only shapes are known."""
    model, stages = config.model(data_shape), config.all_stages
    everywhere = replicated(mesh)
    until = sum(one.num_steps for one in stages[: stage + 1])
    init = functools.partial(state_after, stages, until, model=model, num_data=num_train)
    keys = jax.eval_shape(functools.partial(run_keys, config.seed))
    state = jax.tree.map(functools.partial(_placed, everywhere), jax.eval_shape(init, keys.state))
    key = _placed(everywhere, keys.state)
    if program == "step":
        along = NamedSharding(mesh, PartitionSpec(None, "data"))
        indices: Any = jax.ShapeDtypeStruct((1, config.data.batch_size), jnp.int32, sharding=along)
        size = math.prod(data_shape)
        if stays_on_devices(config.data.storage, num_train * size * jnp.dtype(dtype).itemsize):
            stored: Any = jax.ShapeDtypeStruct((num_train, size), dtype, sharding=everywhere)
            rows = indices
        else:
            stored, rows = jax.ShapeDtypeStruct((*indices.shape, size), dtype, sharding=along), None
        classes: Any = jax.ShapeDtypeStruct((num_train,), jnp.int32, sharding=everywhere)
        batch = Batch(stored, rows, indices, classes if config.data.labels else None, data_shape)
        step = stages[stage].train_step(model, stages[stage].make_optimizer(), config.data.transpose)
        return step.lower(state, batch)
    first = config.evaluation.estimator.tried_first
    x = jax.ShapeDtypeStruct((first.batch_size, *data_shape), jnp.float32, sharding=everywhere)
    evaluate = jax.jit(lambda key, params, x: first(key, model, params, x, config.proposal())[0])
    return evaluate.lower(key, state.params, x)


def _placed(sharding: NamedSharding, leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
