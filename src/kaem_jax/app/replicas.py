"""`kaem train --num_replicas R`: R runs that differ in their seeds alone, in one program.

A small model leaves a chip idle. Replicas are a leading axis of the whole training step, sharded over the devices,
which do not communicate. Each replica has the folder of a run, `seed_S`, which every other command reads.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kaem_jax.app.data import Dataset, load_dataset
from kaem_jax.app.data.feed import stays_on_devices
from kaem_jax.app.devices.mesh import make_mesh
from kaem_jax.app.devices.preemption import StopRequest
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import RunLog
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.performance import Performance
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.lock import claimed
from kaem_jax.app.runs.progress import Progress
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, DivergedError, RunError
from kaem_jax.jax_utils.processes import say
from kaem_jax.keys import run_keys
from kaem_jax.model import Model
from kaem_jax.training.batch import Batch, batch_indices
from kaem_jax.training.progress import ProgressReporter
from kaem_jax.training.stage import state_after
from kaem_jax.training.state import TrainState

_REPLICA = PartitionSpec("replica")


def train_replicas(config: Experiment, workdir: pathlib.Path, num_replicas: int, overwrite: bool = False) -> Outcome:
    """Trains R runs with seeds from `config.seed` on, or continues them, and then evaluates one after the other.

    Args:
      config: configuration of the first run.
      workdir: where each run gets its folder.
      num_replicas: R. The number of devices used is the largest that divides R.
      overwrite: delete earlier runs in these folders first.

    Returns:
      FINISHED, or INTERRUPTED after SIGTERM or Ctrl-C with everything saved.

    Raises:
      ConfigError: the data are not kept on devices, `train.refit` is on, or there are several processes.
      ConfigError, DataError, RunError, DivergedError: see `train_and_evaluate`.
    """
    dataset = load_dataset(config.data)
    config = bind(config, dataset)
    _check(config, dataset)
    configs = [dataclasses.replace(config, seed=config.seed + i) for i in range(num_replicas)]
    folders = [RunFolder(workdir / f"seed_{one.seed}") for one in configs]
    if not overwrite:
        _check_alike(folders)
    with StopRequest() as stop:
        _train(configs, folders, dataset, stop, overwrite)
    if stop.signal_name:
        return Outcome.INTERRUPTED
    for one, folder in zip(configs, folders, strict=True):
        say(f"evaluating seed {one.seed}")
        if train_and_evaluate(one, folder.root) is Outcome.INTERRUPTED:
            return Outcome.INTERRUPTED
    return Outcome.FINISHED


def _check(config: Experiment, dataset: Dataset) -> None:
    if config.train.refit or config.stages:
        raise ConfigError("--num_replicas is for runs of one stage without train.refit; give each run its own seed")
    if jax.process_count() > 1:
        raise ConfigError("--num_replicas is for one process; give each of several its own --config.seed")
    if not stays_on_devices(config.data.storage, dataset.train.dtype.itemsize * int(np.prod(dataset.train.shape))):
        raise ConfigError(
            f"--num_replicas needs training data in the memory of the devices, and data.storage={config.data.storage!r}"
            " keeps them elsewhere"
        )
    make_mesh(config.parallel, config.data.batch_size, config.num_rungs)  # of the evaluations


def _check_alike(folders: Sequence[RunFolder]) -> None:
    """Refuses new runs beside old ones, before a folder is made."""
    are_old = {folder.root.name: folder.config.exists() for folder in folders}
    if any(are_old.values()) and not all(are_old.values()):
        old, new = (", ".join(name for name in are_old if are_old[name] == is_old) for is_old in (True, False))
        raise RunError(
            f"{old} hold runs and {new} none: train the new ones alone, by --config.seed and --num_replicas, or all "
            "anew by --overwrite"
        )


def _train(
    configs: Sequence[Experiment], folders: Sequence[RunFolder], dataset: Dataset, stop: StopRequest, overwrite: bool
) -> None:
    """All updates; every run is saved at its intervals, and after a signal."""
    config, model = configs[0], configs[0].model(dataset.data_shape)
    templates = [_start(one, model, dataset) for one in configs]
    with contextlib.ExitStack() as until_the_end:
        enter = until_the_end.enter_context
        for one, folder in zip(configs, folders, strict=True):
            enter(claimed(folder, one, dataset, overwrite))
        saved = [enter(Checkpoints(folder.checkpoints, config.checkpoint)) for folder in folders]
        step, states = _newest(saved, templates)
        if step >= config.train.num_steps:
            return
        say(f"resuming {len(configs)} runs at step {step}" if step else f"training {len(configs)} runs")
        runs = [
            Progress(one, model, state, checkpoints, stop, dataset.form)
            for one, state, checkpoints in zip(configs, states, saved, strict=True)
        ]
        for run, one, folder in zip(runs, configs, folders, strict=True):
            run.step = run.saved_step = step
            folder.write_config(one, dataset)
        logs = [enter(RunLog(folder.metrics, folder.tensorboard, step)) for folder in folders]
        feed, advance, state = _program(configs, model, dataset, states, step)
        per_call = config.train.updates_a_call(config.num_steps, step)
        performance = Performance(step, config.data.batch_size * len(configs))
        progress, pending = ProgressReporter(config.train.num_steps, step), {}
        while step < config.train.num_steps and not stop.signal_name:
            state, metrics = advance(state, *feed(step))
            step += per_call
            pending[step] = metrics
            if step % config.train.log_every:
                continue
            read, numbers = _read(runs, pending), performance.row(step)
            rows = [{"step": step, **row, **numbers} for row in read]
            for log, row in zip(logs, rows, strict=True):
                log.write(row)
            progress.report(rows[0] | {"train/loss": float(np.mean([row["train/loss"] for row in rows]))})
            if step % config.checkpoint.every_steps == 0:
                _save(runs, state, step)
            pending = {}
            performance.restart(step)
        _read(runs, pending)
        _save(runs, state, step)


def _start(config: Experiment, model: Model, dataset: Dataset) -> TrainState:
    return state_after(config.all_stages, 0, run_keys(config.seed).state, model, len(dataset.train))


def _newest(saved: Sequence[Checkpoints], templates: Sequence[TrainState]) -> tuple[int, Sequence[TrainState]]:
    """The newest step saved by all runs, and its states; without one, 0 and the initial states."""
    common = set.intersection(*[set(checkpoints.steps) for checkpoints in saved])
    if not common:
        return 0, templates
    step = max(common)
    return step, [one.restore(step, template) for one, template in zip(saved, templates, strict=True)]


def _program(
    configs: Sequence[Experiment], model: Model, dataset: Dataset, states: Sequence[TrainState], step: int
) -> tuple[Any, jax.stages.Compiled, TrainState]:
    """The arguments of the program as a function of the step, the program, and the states stacked over replicas."""
    config, num = configs[0], len(configs)
    count = max(size for size in range(1, jax.device_count() + 1) if num % size == 0)
    mesh = Mesh(np.array(jax.devices()[:count]), ("replica",), (AxisType.Auto,))
    [stage] = config.all_stages
    train_step = stage.train_step(model, stage.make_optimizer(), config.data.transpose)
    shape = dataset.data_shape
    num_data, per_call = len(dataset.train), config.train.updates_a_call(config.num_steps, step)

    def one(state: TrainState, rows: Array, stored: Array, classes: Array | None) -> Any:
        return train_step(state, Batch(stored, rows, rows, classes, shape))

    specs = (_REPLICA, _REPLICA, PartitionSpec(), PartitionSpec())
    replicated = jax.shard_map(
        jax.vmap(one, in_axes=(0, 0, None, None)), mesh=mesh, in_specs=specs, out_specs=_REPLICA, check_vma=False
    )
    along, everywhere = NamedSharding(mesh, _REPLICA), NamedSharding(mesh, PartitionSpec())
    everything = np.arange(num_data)
    stored = jax.device_put(dataset.train[everything].reshape(num_data, -1), everywhere)
    classes = None
    if config.data.labels and dataset.train_labels is not None:
        classes = jax.device_put(dataset.train_labels(everything).astype(np.int32), everywhere)

    def feed(step: int) -> tuple[Array, Array, Array | None]:
        order = {"size": num_data, "batch_size": config.data.batch_size}
        rows = [[batch_indices(step + k, seed=run.seed, **order) for k in range(per_call)] for run in configs]
        return jax.device_put(np.array(rows), along), stored, classes

    state = jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), along)
    program = jax.jit(replicated, donate_argnums=0).lower(state, *feed(step)).compile()
    return feed, program, state


def _read(runs: Sequence[Progress], pending: dict[int, dict[str, Array]]) -> list[dict[str, float]]:
    """The newest metrics of each run, all checked."""
    fetched = jax.device_get(pending)
    rows = []
    for i, run in enumerate(runs):
        try:
            rows.append(run.read({step: {name: leaf[i] for name, leaf in of.items()} for step, of in fetched.items()}))
        except DivergedError as error:
            raise DivergedError(f"run {i} of {len(runs)}: {error}") from None
    return rows


def _save(runs: Sequence[Progress], state: TrainState, step: int) -> None:
    for i, run in enumerate(runs):
        run.state, run.step = jax.tree.map(lambda leaf, i=i: leaf[i], state), step
        run.save()
