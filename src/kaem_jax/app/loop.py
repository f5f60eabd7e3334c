"""The training loop, readable from top to bottom."""

import contextlib
import enum
import functools
import json
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from kaem_jax.app.data import Feed, load_dataset
from kaem_jax.app.devices.mesh import make_mesh
from kaem_jax.app.devices.preemption import StopRequest
from kaem_jax.app.evaluation.periodic import PeriodicEvaluation
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import (
    Performance,
    RunLog,
    estimates_of,
    evaluated_during_training,
    held_out_nats,
    read_metrics,
)  # fmt: skip
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.lock import claimed, warn_of_other_bits
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.app.runs.training_run import TrainingRun
from kaem_jax.files.writing import write_json
from kaem_jax.jax_utils.keys import run_keys
from kaem_jax.jax_utils.placement import place, replicated
from kaem_jax.jax_utils.processes import barrier, check_same_on_all_processes, from_writer, is_writer, say
from kaem_jax.training.batch import to_unit_interval
from kaem_jax.training.progress import ProgressReporter
from kaem_jax.training.refit import refit_state
from kaem_jax.training.stage import state_after
from kaem_jax.training.state import TrainState, state_of_next_stage


class Outcome(enum.Enum):
    """How a call of `train_and_evaluate` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def train_and_evaluate(
    config: Experiment,
    workdir: pathlib.Path,
    overwrite: bool = False,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Outcome:
    """Trains a KAEM, or continues the run that `workdir` holds, bit for bit as if it had never stopped.

    Args:
      workdir: folder for checkpoints, metrics and figures; see docs/train.md.
      overwrite: delete an earlier run in `workdir` first.
      watch: called with each row of training and of evaluation; an exception that it raises ends the run.

    Returns:
      FINISHED, or INTERRUPTED after SIGTERM or Ctrl-C with everything saved.

    Raises:
      ConfigError, DataError, RunError: model, data or `workdir` do not suit, or are unreadable.
      DivergedError: a metric is not finite.
    """
    # 1. Settings, data, folder: everything is checked before anything compiles.
    dataset = load_dataset(config.data)
    config = bind(config, dataset)
    model, num_data = config.model(dataset.data_shape), len(dataset.train)
    mesh = make_mesh(config.parallel, config.data.batch_size, config.num_rungs)
    folder = RunFolder(workdir)
    with (
        claimed(folder, config, dataset, overwrite),
        jax.set_mesh(mesh),
        StopRequest() as stop,
        contextlib.ExitStack() as until_the_end,
    ):
        estimates = estimates_of(read_metrics(folder.metrics))
        checkpoints = until_the_end.enter_context(Checkpoints(folder.checkpoints, config.checkpoint, estimates))

        # 2. State: the newest readable checkpoint, or fresh. Its arrays are on all devices.
        everywhere = replicated(mesh)
        keys = jax.jit(run_keys, static_argnums=0, out_shardings=everywhere)(config.seed)
        state_of = functools.partial(state_after, config.all_stages, key=keys.state, model=model, num_data=num_data)

        def template_of(step: int) -> TrainState:
            shapes = jax.eval_shape(functools.partial(state_of, step))
            return jax.tree.map(lambda leaf: leaf.update(sharding=everywhere), shapes)

        restored = checkpoints.restore_newest(template_of)
        state = jax.jit(functools.partial(state_of, 0), out_shardings=everywhere)() if restored is None else restored[1]
        training = TrainingRun(config, model, state, checkpoints, stop, dataset.form)
        del state  # it would stay in memory
        if restored is not None:
            training.step = training.saved_step = restored[0]
        for later in [step for step in estimates if step > training.step]:
            del estimates[later]
        estimated = zlib.crc32(repr(sorted(estimates.items())).encode())
        check_same_on_all_processes({"the newest step in --workdir": training.step, "its estimates": estimated})
        if restored is not None:
            summary = folder.read_summary()
            is_evaluated = summary is not None and folder.saved_config().evaluation == config.evaluation
            if training.step >= config.num_steps and from_writer(is_evaluated):
                say(f"{workdir} is finished at step {training.step}: {json.dumps(summary)}")
                say("a finished run is not trained again: kaem train --overwrite replaces it, or give another folder")
                return Outcome.FINISHED
            say(f"resuming {workdir} at step {training.step}")
            warn_of_other_bits(folder, config)
            del restored
        if is_writer():
            if folder.summary.exists():  # of other settings of evaluation
                folder.summary.replace(folder.summary_before)
            folder.write_config(config, dataset)
        log = until_the_end.enter_context(RunLog(folder.metrics, folder.tensorboard, training.step))

        # 3. The loop over stages. Each has one step, compiled ahead of time, so that compilation is timed separately.
        held_out = to_unit_interval(place(dataset.held_out, mesh))
        evaluation = PeriodicEvaluation(training, config, folder, keys, held_out)
        performance = Performance(training.step, config.data.batch_size)
        progress = ProgressReporter(config.num_steps, training.step)
        labels_of = dataset.train_labels if config.data.labels else None
        feed = Feed(
            dataset.train, config.data.storage, mesh,
            batch_size=config.data.batch_size, seed=config.seed, labels=labels_of,
        )  # fmt: skip
        stop_step, stopped = 0, False
        for number, stage in enumerate(config.all_stages, start=1):
            start_step, stop_step = stop_step, stop_step + stage.num_steps
            if training.step > stop_step:
                continue
            numbers: dict[str, float] = {}
            if training.step < stop_step:
                optimizer, per_call = stage.make_optimizer(), config.train.updates_a_call(stop_step, training.step)
                if number > 1 and training.step == start_step:
                    begin = functools.partial(
                        state_of_next_stage, model=model, optimizer=optimizer, sampler=stage.posterior,
                        num_data=num_data, averaged=stage.keeps_average,
                    )  # fmt: skip
                    training.state = jax.jit(begin, out_shardings=everywhere)(training.state)
                which = f" of stage {number}, {stage.num_steps} updates" if config.stages else ""
                say(f"compiling the training step{which}")
                started = time.perf_counter()
                jitted = stage.train_step(model, optimizer, config.data.transpose, start_step)
                train_step = jitted.lower(training.state, feed(0, per_call)).compile()
                if training.step == start_step:
                    numbers["perf/compile_seconds"] = time.perf_counter() - started
                performance.restart(training.step)

            # 4. Updates. Metrics stay on the device until the next log step.
            pending: dict[int, dict[str, Array]] = {}
            while not (stopped := training.stop_requested()):  # of several processes it says so once
                # A step is evaluated after it is saved. If a signal ends the evaluation, the resumed run repeats it.
                if evaluation.is_due(training.step) and training.step not in estimates:
                    with stop.at_once():
                        row = evaluation.row(progress)
                        log.write(row)
                        estimates |= estimates_of([row])
                        evaluation.draw(row)
                        progress.say(f"held-out {held_out_nats(row)}")
                        if watch is not None:
                            watch(row)
                    performance.restart(training.step)
                    continue
                if training.step >= stop_step:
                    break
                with jax.transfer_guard("disallow"):
                    training.state, metrics = train_step(training.state, feed(training.step, per_call))
                step = training.step = training.step + per_call
                pending[step] = metrics
                if step % config.train.log_every and step != stop_step:
                    continue

                row = {"step": step, **training.read(pending), **performance.row(step), **numbers}
                log.write(row)
                progress.report(row)
                if watch is not None:
                    watch(row)
                if step == stop_step and stage.refit:
                    say("fitting the prior to posterior draws")
                    labels = None if labels_of is None else labels_of(np.arange(num_data))
                    training.state = refit_state(
                        training.state, model, stage.posterior, dataset.train, labels, step, start_step
                    )
                if step % config.checkpoint.every_steps == 0 or step == stop_step:
                    training.save()
                pending, numbers = {}, {}
                performance.restart(step)
            if stopped:
                training.read(pending)
                break

        # 5. Interrupted: save this step and return.
        if stopped:
            training.save()
            checkpoints.wait()
            return _interrupted(training, stop)

        # 6. Finished: the long evaluation. All is saved, so a signal may end it, and the same command repeats it.
        checkpoints.wait()
        if stop.signal_name:  # it came while the last checkpoint was written
            return _interrupted(training, stop)
        with stop.at_once():
            if config.evaluation.final:
                say(
                    f"the final evaluation takes {evaluation.forecast()}; the model is saved: Ctrl-C, or "
                    "evaluation.final=False, leaves it out"
                )
                final = evaluation.summary()
                log.write(final)
            else:
                barrier("the last row")
                final = dict(evaluated_during_training(read_metrics(folder.metrics))[-1])
            evaluation.draw(final)
            if is_writer():
                write_json(folder.summary, final)
            say(
                f"finished {training.step} steps: held-out log-likelihood {held_out_nats(final)} per datum; "
                f"everything is in {workdir}"
            )
            return Outcome.FINISHED
        return _interrupted(training, stop)


def _interrupted(training: TrainingRun, stop: StopRequest) -> Outcome:
    say(f"{stop.signal_name or 'preempted'}: saved step {training.step}")
    return Outcome.INTERRUPTED
