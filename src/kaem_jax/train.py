"""The training loop, readable from top to bottom."""

import enum
import functools
import json
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.checkpoint import Checkpoints
from kaem_jax.config import Config, ConfigError
from kaem_jax.data import Dataset, Feed, batch_indices, is_image, load_dataset, to_unit_interval
from kaem_jax.evaluate import compare_samples, prepare_features
from kaem_jax.gallery import draw_progress
from kaem_jax.logging import MetricsFile, ProgressReporter, TensorBoard, say
from kaem_jax.metrics.held_out import effort, held_out_log_likelihood
from kaem_jax.metrics.reconstruction import reconstruct
from kaem_jax.parallel import barrier, is_writer, make_mesh, place, replicated
from kaem_jax.preemption import StopRequest
from kaem_jax.run import Run, Workdir, make_model
from kaem_jax.train_state import adapted_of, init_train_state, run_keys
from kaem_jax.train_step import grid_update_steps, make_grid_update, make_optimizer, make_train_step

__all__ = ["DivergedError", "Outcome", "train_and_evaluate"]

_MIN_HELD_OUT = 20  # for a comparison with samples


class Outcome(enum.Enum):
    """How a call of `train_and_evaluate` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class DivergedError(Exception):
    """A metric is not finite; the message says which, at which step, and what was kept."""


def train_and_evaluate(config: Config, workdir: pathlib.Path, overwrite: bool = False) -> Outcome:
    """Trains a KAEM, or continues the run that `workdir` holds, bit for bit as if it had never stopped.

    Args:
      config: the run.
      workdir: folder for checkpoints, metrics and figures; see README.md.
      overwrite: delete an earlier run in `workdir` first.

    Returns:
      FINISHED, or INTERRUPTED after SIGTERM or Ctrl-C with everything saved.

    Raises:
      ConfigError: the configuration contradicts the data.
      DataError: the data cannot be had.
      CheckpointError: `workdir` holds another run, or nothing readable.
      DivergedError: a metric is not finite.
    """
    # 1. Data, model, folder: all that can be refused is refused before anything compiles.
    dataset = load_dataset(config.data)
    if config.data.batch_size > len(dataset.train):
        raise ConfigError(
            f"data.batch_size={config.data.batch_size} must be at most {len(dataset.train)}, the size of the "
            f"training split of data.name={config.data.name!r}"
        )
    model = make_model(config, dataset.data_shape)
    rungs = config.posterior.num_temperatures if config.posterior.kind == "tempered" else config.parallel.temp
    mesh = make_mesh(config.parallel, config.data.batch_size, rungs)
    folder = Workdir(workdir)
    if not overwrite:
        folder.check(config)
    if config.evaluation.samples_every_steps:
        _check_samples(config, dataset)
    barrier("checked")  # what is refused is refused by every process, before one of them writes
    if is_writer() and overwrite:
        folder.classifier.unlink(missing_ok=True)
    barrier("forgotten")
    extractor = None
    if config.evaluation.samples_every_steps:
        asked, features = config.evaluation.sample_metrics, config.evaluation.features
        extractor = prepare_features(config, dataset, asked, features, folder.classifier)
    barrier("extractor")
    if is_writer():
        folder.prepare(overwrite)
    barrier("prepared")

    # 2. State: fresh, or the newest readable checkpoint. Born on all devices.
    optimizer = make_optimizer(config)
    num_train = len(dataset.train)
    with jax.set_mesh(mesh), StopRequest() as stop, Checkpoints(folder.checkpoints, config.checkpoint) as checkpoints:
        key_state, key_evaluation, key_figures = jax.jit(run_keys, static_argnums=0, out_shardings=replicated(mesh))(
            config.seed
        )
        init = functools.partial(
            init_train_state, model=model, optimizer=optimizer, posterior=config.posterior, num_data=num_train
        )
        state = jax.jit(init, out_shardings=replicated(mesh))(key_state)
        num_steps = config.train.num_steps
        step, saved_step = 0, -1
        if (restored := checkpoints.restore_newest(state)) is not None:
            step, state = restored
            saved_step = step
            if step >= num_steps and folder.summary.exists():
                say(f"{workdir} is finished at step {step}: {folder.summary.read_text().strip()}")
                say("start anew with --overwrite, or give another --workdir")
                return Outcome.FINISHED
            say(f"resuming {workdir} at step {step}")
        if is_writer():
            folder.write_config(config, model.data_shape, num_train)
        metrics_file = MetricsFile(folder.metrics, last_step=step)
        tensorboard = TensorBoard(folder.tensorboard, first_step=step)

        # 3. The step, compiled once and ahead of time, so that its cost is known apart.
        feed, test_data = Feed(dataset.train, config.data.storage, mesh), to_unit_interval(place(dataset.test, mesh))
        order = {"size": num_train, "batch_size": config.data.batch_size, "seed": config.seed}
        started = time.perf_counter()
        steps_per_call = config.train.steps_per_call

        def batches(step: int) -> tuple[Array, Array | None, Array]:
            """What the step takes beside the state: data, rows and indices of the minibatches from `step` on."""
            indices = np.stack([batch_indices(step + i, **order) for i in range(steps_per_call)])
            return *feed(indices), place(indices, mesh, None, "data")

        train_step = make_train_step(model, optimizer, config).lower(state, *batches(0)).compile()
        compile_seconds = time.perf_counter() - started
        grid_steps = grid_update_steps(config)
        grid_update = make_grid_update(model, config) if grid_steps else None

        few = test_data[: config.evaluation.num_reconstructions]
        key_held_out, key_reconstruction = jax.random.split(key_evaluation)

        def evaluate(final: bool) -> dict[str, float]:
            values = held_out_log_likelihood(key_held_out, model, state.params, test_data, config.evaluation, final)
            _, values["reconstruction_error"] = reconstruct(
                key_reconstruction, model, state.params, few, config.evaluation_posterior, **adapted_of(state)
            )
            named = {f"eval/{name}": float(value) for name, value in values.items()}
            _check_finite(named, step, checkpoints)
            name, number = effort(config.evaluation, final)
            return named | {f"eval/{name}": number}

        def run_as_it_is() -> Run:
            return Run(config, model, state.params, step, adapted_of(state))

        def sample_metrics() -> dict[str, float]:
            settings = config.evaluation
            results = compare_samples(
                run_as_it_is(),
                dataset,
                settings.sample_metrics,
                extractor,
                num_images=settings.num_images,
                seed=config.seed,
            )
            return {
                f"eval/{metric}_{name}": value
                for metric, values in results.items()
                for name, value in values.items()
                if isinstance(value, float) and name != "seconds"
            }

        def stop_requested() -> bool:
            if jax.process_count() > 1:
                return checkpoints.reached_preemption(step)
            return stop.signal_name is not None

        # 4. The loop. Metrics stay on the device until the next log step.
        pending: dict[int, dict[str, Array]] = {}
        window_start, window_step = time.perf_counter(), step
        with ProgressReporter(num_steps, step) as progress:
            while step < num_steps and not stop_requested():
                with jax.transfer_guard("disallow"):
                    batch = batches(step)
                    state, metrics = train_step(state, *batch)
                step += steps_per_call
                if grid_update is not None and step in grid_steps:
                    state, update = grid_update(state, *batch)
                    metrics |= {"grid_change": jnp.max(update.total_variation)}
                    metrics |= {"grid_accepted": jnp.mean(update.accepted, dtype=float)}
                pending[step] = metrics
                if step % config.train.log_every and step != num_steps:
                    continue

                latest = _read(pending, checkpoints)
                rate = (step - window_step) / (time.perf_counter() - window_start)
                row: dict[str, Any] = {"step": step, **latest, "perf/steps_per_second": rate}
                if window_step == 0:
                    row["perf/compile_seconds"] = compile_seconds
                if step % config.evaluation.every_steps == 0 or step == num_steps:
                    row |= evaluate(final=False)
                if config.evaluation.samples_every_steps and step % config.evaluation.samples_every_steps == 0:
                    row |= sample_metrics()
                metrics_file.write(row)
                tensorboard.write(row)
                progress.report(row)
                if step % config.checkpoint.every_steps == 0 or step == num_steps:
                    checkpoints.save(step, state, config.to_dict(), row["eval/log_likelihood"])
                    saved_step = step
                    if step < num_steps:
                        draw_progress(folder, key_figures, run_as_it_is(), test_data)
                pending = {}
                window_start, window_step = time.perf_counter(), step

        # 5. Interrupted: save this very step and leave.
        if step < num_steps:
            _read(pending, checkpoints)
            if saved_step != step:
                checkpoints.save(step, state, config.to_dict(), log_likelihood=None)
            checkpoints.wait()
            tensorboard.close()
            name = stop.signal_name or "preempted"
            say(f"{name}: saved step {step} in {folder.checkpoints}; the same command continues")
            return Outcome.INTERRUPTED

        # 6. Finished: the long evaluation, once.
        final = {"step": step, **evaluate(final=True)}
        metrics_file.write(final)
        tensorboard.write(final)
        tensorboard.close()
        draw_progress(folder, key_figures, run_as_it_is(), test_data)
        if is_writer():
            folder.summary.write_text(json.dumps(final) + "\n")
        name, number = effort(config.evaluation, final=True)
        say(
            f"finished {step} steps: held-out log-likelihood {final['eval/log_likelihood']:.3f} +- "
            f"{final['eval/log_likelihood_standard_error']:.3f} nats per datum "
            f"({name}={number:,}, median ESS {final['eval/ess']:.1f}); everything is in {workdir}"
        )
        return Outcome.FINISHED


def _check_samples(config: Config, dataset: Dataset) -> None:
    """Refuses comparisons of samples that could not be made, before the first step."""
    if not is_image(dataset.data_shape):
        raise ConfigError(
            f"evaluation.samples_every_steps={config.evaluation.samples_every_steps} needs images; data of shape "
            f"{dataset.data_shape} are none: set 0"
        )
    if len(dataset.test) < _MIN_HELD_OUT:
        raise ConfigError(
            f"evaluation.samples_every_steps={config.evaluation.samples_every_steps} needs at least {_MIN_HELD_OUT} "
            f"held-out images, and there are {len(dataset.test)}: set 0, or more data.num_held_out"
        )


def _read(pending: dict[int, dict[str, Array]], checkpoints: Checkpoints) -> dict[str, float]:
    """Fetches the metrics of the steps since the last log step, checks all and returns the newest.

    The newest rather than a mean: a row then does not depend on where a run was interrupted.
    """
    named: dict[str, float] = {}
    for step, values in jax.device_get(pending).items():
        named = {f"train/{name}": float(value) for name, value in values.items()}
        _check_finite(named, step, checkpoints)
    return named


def _check_finite(named: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    for name, value in named.items():
        if not math.isfinite(value):
            kept = checkpoints.steps
            where = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was saved yet"
            raise DivergedError(
                f"{name} is {value} at step {step}; {where}. Lower optimizer.prior.learning_rate or "
                "optimizer.generator.learning_rate, or optimizer.clip_norm"
            )
