"""Compiles a run for chips that are not here, and says what it will cost there."""

import functools
import importlib.resources
import math
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kaem_jax.data import Batch, load_dataset
from kaem_jax.data.feed import stays_on_devices
from kaem_jax.devices.chips import CHIPS, Chip
from kaem_jax.devices.mesh import make_mesh
from kaem_jax.devices.placement import replicated
from kaem_jax.devices.program import Cost, measure
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.runs.bind import bind
from kaem_jax.runs.experiment import Experiment
from kaem_jax.training.keys import run_keys

__all__ = ["KNOWN_DATA", "PROGRAMS", "Report", "compile_for", "compile_only", "find_topology"]

PROGRAMS = ("step", "evaluation", "draws")
# Shape and number of training data of prepared data sets, which need not be here.
KNOWN_DATA = {
    "celeb_a": ((64, 64, 3), 162_770),
    "cifar10": ((32, 32, 3), 50_000),
    "fashion_mnist": ((28, 28, 1), 60_000),
    "mnist": ((28, 28, 1), 60_000),
    "svhn_cropped": ((32, 32, 3), 73_257),
}
_NUM_DRAWS = 256
_GPU = {"h100": "NVIDIA H100 80GB HBM3"}


class Report(NamedTuple):
    """One compiled program, per chip.

    Attributes:
      program: one of `PROGRAMS`.
      seconds: of compilation on this machine.
      memory: bytes in use at once, as the compiler says.
      is_donated: whether all of the state is updated in place.
      cost: products, cycles and messages.
      chip: what it was compiled for.
    """

    program: str
    seconds: float
    memory: int
    is_donated: bool
    cost: Cost
    chip: Chip


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


def find_topology(name: str) -> list[Any]:
    """The devices of a topology, such as `v5e:4x4`, `v6e:16x16` or `h100:8`, none of which need be here.

    Raises:
      ConfigError: the name is not known, or its compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # otherwise it asks the network which machine this is
    try:
        if kind in _GPU:
            return list(_gpus(int(shape or 1)))
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # of the plug-in, which raises several types
        raise ConfigError(
            f"--topology {name!r} cannot be compiled for here ({first_line(error)[:200]}); known are v4, v5e, "
            "v5p and v6e with a shape, as v5e:4x4, and h100:8; the compilers are in the extra `pods`: pip install "
            "-e '.[pods]' in the clone"
        ) from None


def _gpus(count: int) -> Any:
    target = importlib.resources.files("kaem_jax.devices").joinpath("h100.txtpb").read_text()
    return topologies.get_topology_desc(platform="cuda", target_config=target, topology=f"1x1x{count}").devices


def compile_for(
    config: Experiment,
    devices: list[Any],
    data_shape: tuple[int, ...],
    num_train: int,
    programs: tuple[str, ...] = PROGRAMS,
    dtype: Any = jnp.uint8,
) -> Iterator[Report]:
    """Compiles programs of a run, one after the other.

    Args:
      config: the run; `parallel.temp` of its devices hold rungs.
      devices: as `find_topology` returns them.
      data_shape: of one datum.
      num_train: of the training data, which all chips hold.
      programs: names from `PROGRAMS`.
      dtype: of the training data as they are stored.

    Raises:
      ConfigError: the run cannot be laid out on so many devices.
    """
    mesh = make_mesh(config.parallel, config.data.batch_size, config.sampler.num_rungs, devices)
    chip = CHIPS.get(kind := mesh.devices.flat[0].device_kind)
    if chip is None:
        raise ConfigError(f"the peak figures of {kind!r} are not known; known are {', '.join(CHIPS)}")
    is_gpu = mesh.devices.flat[0].platform in ("cuda", "gpu")  # which tries programs out, where there is one
    options: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"} if is_gpu else {}
    for program in programs:
        with jax.set_mesh(mesh):
            lowered, state = _lower(config, mesh, data_shape, num_train, program, dtype)
            started = time.perf_counter()
            compiled = lowered.compile(options)
            seconds = time.perf_counter() - started
        memory: Any = compiled.memory_analysis()
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
        is_donated = memory.alias_size_in_bytes >= sum(_num_bytes(leaf) for leaf in jax.tree.leaves(state))
        cost = measure(compiled.as_text() or "")
        yield Report(program, seconds, used - memory.alias_size_in_bytes, is_donated, cost, chip)


def _num_bytes(leaf: Any) -> int:
    return 0 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.size * leaf.dtype.itemsize


def _lower(
    config: Experiment, mesh: Mesh, data_shape: tuple[int, ...], num_train: int, program: str, dtype: Any
) -> tuple[jax.stages.Lowered, Any]:
    """The program for arguments of which only shapes are known, and the part of them that is donated."""
    model, optimizer = config.model(data_shape), config.make_optimizer()
    everywhere = replicated(mesh)
    init = functools.partial(config.initial_state, model=model, num_data=num_train, optimizer=optimizer)
    keys = jax.eval_shape(functools.partial(run_keys, config.seed))
    state = jax.tree.map(functools.partial(_placed, everywhere), jax.eval_shape(init, keys.state))
    key = _placed(everywhere, keys.state)
    if program == "step":
        along = NamedSharding(mesh, PartitionSpec(None, "data"))
        indices: Any = jax.ShapeDtypeStruct(
            (config.train.steps_per_call, config.data.batch_size), jnp.int32, sharding=along
        )
        size = math.prod(data_shape)
        if stays_on_devices(config.data.storage, num_train * size * jnp.dtype(dtype).itemsize):
            stored: Any = jax.ShapeDtypeStruct((num_train, size), dtype, sharding=everywhere)
            rows = indices
        else:
            stored, rows = jax.ShapeDtypeStruct((*indices.shape, size), dtype, sharding=along), None
        classes: Any = jax.ShapeDtypeStruct((num_train,), jnp.int32, sharding=everywhere)
        batch = Batch(stored, rows, indices, classes if config.data.labels else None, data_shape)
        return config.train_step(model, optimizer).lower(state, batch), state
    if program == "draws":
        draw = jax.jit(functools.partial(model.sample, n=_NUM_DRAWS))
        return draw.lower(key, state.params), ()
    first = config.evaluation.estimator.tried_first
    x = jax.ShapeDtypeStruct((first.batch_size, *data_shape), jnp.float32, sharding=everywhere)
    evaluate = jax.jit(lambda key, params, x: first(key, model, params, x, config.proposal())[0])
    return evaluate.lower(key, state.params, x), ()


def _placed(sharding: NamedSharding, leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
