"""Compiles the training steps of a run for chips that are not here: memory, FLOPs and collectives of each stage."""

import collections
import functools
import importlib.resources
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from kaem_jax.app.data import load_dataset
from kaem_jax.app.data.feed import stays_on_devices
from kaem_jax.app.devices.mesh import make_mesh
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.errors import ConfigError, first_line
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.jax_utils.placement import replicated
from kaem_jax.training.batch import Batch
from kaem_jax.training.stage import state_after

# Shape and number of training data of prepared data sets, which need not be here.
KNOWN_DATA = {
    "celeb_a": ((64, 64, 3), 162_770),
    "cifar10": ((32, 32, 3), 50_000),
    "fashion_mnist": ((28, 28, 1), 60_000),
    "mnist": ((28, 28, 1), 60_000),
    "svhn_cropped": ((32, 32, 3), 73_257),
}
_GPU = "h100"
# With these, libtpu does not ask the network which machine this is, and other processes may compile at the same time.
_NO_HARDWARE = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
_COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")


def compile_only(config: Experiment, topology: str) -> int:
    """Compiles the step of each stage and prints a line on each; raises a ConfigError if the chips do not suit."""
    jax.config.update("jax_enable_compilation_cache", False)  # programs for absent chips cannot be loaded again
    jax.config.update("jax_platforms", "cpu")  # the compilers are plug-ins that would look for their hardware
    devices = find_topology(topology)
    # On a GPU, if there is one, the compiler would try programs out.
    options: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"} if devices[0].platform in ("cuda", "gpu") else {}
    print(f"{config.name} on {len(devices)} x {devices[0].device_kind}, for each chip:")
    config, data_shape, num_train, dtype = with_data(config)
    for stage in range(len(config.all_stages)):
        compiled = lower_step(config, devices, data_shape, num_train, dtype, stage).compile(options)
        print(f"stage {stage + 1}: {described(compiled)}", flush=True)
    return 0


def described(compiled: jax.stages.Compiled) -> str:
    """Peak memory, operations and collectives of a program on one chip; XLA counts the body of a loop once."""
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    sent = collections.Counter(_COLLECTIVE.findall(compiled.as_text() or ""))
    collectives = ", ".join(f"{count} {kind}" for kind, count in sent.items()) or "none"
    mib, gflop = memory.peak_memory_in_bytes / 2**20, cost["flops"] / 1e9
    return f"{mib:.1f} MiB, {gflop:.2f} GFLOP (each loop once), collectives: {collectives}"


def with_data(config: Experiment) -> tuple[Experiment, tuple[int, ...], int, Any]:
    """The bound experiment; shape, number and dtype of the training data, which are read only if they are not known."""
    settings = config.data
    if settings.name not in KNOWN_DATA:
        dataset = load_dataset(settings, lazy=True)
        return bind(config, dataset), dataset.data_shape, len(dataset.train), dataset.train.dtype
    shape, num_train = KNOWN_DATA[settings.name]
    if settings.image_size:
        shape = (settings.image_size, settings.image_size, shape[-1])
    left = num_train - (settings.validation_size if settings.held_out == "validation" else 0)
    return config, shape, min(settings.num_train or left, left), np.uint8


def find_topology(name: str) -> list[Any]:
    """The devices of a topology such as `v5e:4x4`, `v6e:16x16` or `h100:8`; none need be here."""
    kind, _, shape = name.partition(":")
    for setting, value in _NO_HARDWARE.items():
        os.environ.setdefault(setting, value)
    try:
        if kind == _GPU:
            target = importlib.resources.files("kaem_jax.app.devices").joinpath("h100.txtpb").read_text()
            shape = f"1x1x{int(shape or 1)}"
            return list(topologies.get_topology_desc(platform="cuda", target_config=target, topology=shape).devices)
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # of the plug-in, which raises several types
        raise ConfigError(
            f"--compile_only={name} cannot be compiled for here ({first_line(error)[:200]}); known are v4, v5e, "
            "v5p and v6e with a shape, as v5e:4x4, and h100:8; the compilers are in the extra `pods`: pip install "
            "-e '.[pods]' in the clone"
        ) from None


def lower_step(
    config: Experiment, devices: Sequence[Any], data_shape: tuple[int, ...], num_train: int, dtype: Any, stage: int = 0
) -> jax.stages.Lowered:
    """The step of a stage on `devices`, not yet compiled, for data as `with_data` describes them."""
    mesh = make_mesh(config.parallel, config.data.batch_size, config.num_rungs, devices)
    model, stages = config.model(data_shape), config.all_stages
    everywhere = replicated(mesh)
    until = sum(one.num_steps for one in stages[: stage + 1])
    init = functools.partial(state_after, stages, until, model=model, num_data=num_train)
    with jax.set_mesh(mesh):
        keys = jax.eval_shape(functools.partial(run_keys, config.seed))
        state = jax.tree.map(lambda leaf: leaf.update(sharding=everywhere), jax.eval_shape(init, keys.state))
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
        first_step = until - stages[stage].num_steps
        step = stages[stage].train_step(model, stages[stage].make_optimizer(), config.data.transpose, first_step)
        return step.lower(state, batch)
