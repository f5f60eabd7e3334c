"""Evaluates a model during training, and draws its figures."""

import datetime
from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from kaem_jax.app.evaluation.evaluators import log_likelihood, reconstruction
from kaem_jax.app.evaluation.gallery import draw_held_out, draw_samples
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import is_final
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.app.runs.training_run import TrainingRun
from kaem_jax.inference.evidence import Estimator
from kaem_jax.jax_utils.keys import RunKeys, evaluation_keys
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.training.progress import ProgressReporter

_LOGGED = {
    "nats": "log_likelihood",
    "standard_error": "log_likelihood_standard_error",
    "mean_squared_error": "reconstruction_error",
    "share_of_tokens": "reconstructed_tokens",
    **{name: name for name in ("ess", "ess_min", "is_bound", "num_bounds", "effort_id")},
    **{name: name for name in ("num_samples", "num_chains", "num_temperatures", "num_gradients", "num_data")},
}


class PeriodicEvaluation:
    """Evaluates a model during training and draws its figures, always with the same keys and data."""

    def __init__(self, training: TrainingRun, config: Experiment, folder: RunFolder, keys: RunKeys, held_out: Array):
        self._training, self._config, self._folder, self._held_out = training, config, folder, held_out
        self._key_figures, self._keys = keys.figures, jax.random.split(keys.evaluation)
        self._proposal = config.proposal()
        self._again: Array | None = None
        self._seconds = 0.0  # of the newest log-likelihood
        self._few = held_out[: config.evaluation.num_data]
        self._reconstructed = held_out[: config.evaluation.num_reconstructions]

    def is_due(self, step: int) -> bool:
        return step > 0 and (step % self._config.evaluation.every_steps == 0 or step == self._config.num_steps)

    @full_precision
    def row(self, progress: ProgressReporter) -> dict[str, Any]:
        """A row of the log; at checkpoints, samples and densities are drawn first."""
        run = self._training.as_run()
        if self._is_drawn(run.step):
            progress.once("drawing samples and densities")
            draw_samples(self._folder, self._key_figures, run, self._held_out)
        progress.once("evaluating held-out data")
        return self._evaluated(self._few, self._config.evaluation.estimator, *self._keys)

    @full_precision
    def summary(self) -> dict[str, Any]:
        """Draws samples and densities; returns the row of the final evaluation, with the numbers of `kaem evaluate`."""
        draw_samples(self._folder, self._key_figures, self._training.as_run(), self._held_out)
        keys, estimator = evaluation_keys(0), self._config.evaluation.estimator.final
        row = self._evaluated(self._held_out, estimator, keys.likelihood, keys.reconstruction)
        return row | {"eval/is_final": True}

    def forecast(self) -> str:
        """What `summary` will take, from the newest log-likelihood."""
        few, final = self._config.evaluation.estimator, self._config.evaluation.estimator.final
        times = len(self._held_out) * final.num_evaluations / (len(self._few) * few.num_evaluations)
        about = f", about {datetime.timedelta(seconds=round(times * self._seconds))}" if self._seconds else ""
        return f"all {len(self._held_out):,} held-out data: {times:.3g} times the last evaluation{about}"

    def draw(self, row: Mapping[str, Any]) -> None:
        """Draws the newest reconstructions and the curves of all rows, if `row` is at a checkpoint or final."""
        run = self._training.as_run()
        if is_final(row) or self._is_drawn(run.step):
            draw_held_out(self._folder, run, self._held_out, self._again)

    def _is_drawn(self, step: int) -> bool:
        if step == self._config.num_steps:
            return not self._config.evaluation.final  # whose figures follow
        return step % self._config.checkpoint.every_steps == 0

    def _evaluated(
        self, x: Array, estimator: Estimator, key_likelihood: Array, key_reconstruction: Array
    ) -> dict[str, Any]:
        run = self._training.as_run()
        numbers, self._again = reconstruction.evaluate(key_reconstruction, run, self._reconstructed)
        # Both have `num_data`; that of the likelihood is logged.
        numbers = numbers | log_likelihood.evaluate(key_likelihood, run, x, estimator, self._proposal)
        self._seconds = numbers["seconds"]
        row = {f"eval/{_LOGGED[name]}": value for name, value in numbers.items() if name in _LOGGED}
        self._training.check_finite(row, run.step)
        return {"step": run.step, **row}
