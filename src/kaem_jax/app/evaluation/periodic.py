"""Evaluates a model during training, and draws its figures."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from kaem_jax.app.evaluation.evaluators import log_likelihood, reconstruction
from kaem_jax.app.evaluation.gallery import draw_held_out, draw_samples
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import is_final
from kaem_jax.app.runs.progress import Progress
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.inference.evidence import Estimator
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.keys import RunKeys
from kaem_jax.training.progress import ProgressReporter

_LOGGED = {
    "log_likelihood": {
        "nats": "log_likelihood",
        "standard_error": "log_likelihood_standard_error",
        **{name: name for name in ("ess", "ess_min", "is_bound", "num_bounds", "effort_id")},
        **{name: name for name in ("num_data", "num_samples", "num_chains", "num_temperatures", "num_gradients")},
    },
    "reconstruction": {"mean_squared_error": "reconstruction_error", "share_of_tokens": "reconstructed_tokens"},
}


class PeriodicEvaluation:
    """Evaluates a model during training and draws its figures, always with the same keys and data."""

    def __init__(self, training: Progress, config: Experiment, folder: RunFolder, keys: RunKeys, held_out: Array):
        self._training, self._settings, self._folder = training, config.evaluation, folder
        self._num_steps, self._key_figures, self._held_out = config.num_steps, keys.figures, held_out
        self._draw_every = config.checkpoint.every_steps
        self._again: Array | None = None
        self._keys, self._proposal = jax.random.split(keys.evaluation), config.proposal()
        self._few = held_out[: config.evaluation.num_data]
        self._reconstructed = held_out[: config.evaluation.num_reconstructions]

    def is_due(self, step: int) -> bool:
        return step > 0 and (step % self._settings.every_steps == 0 or step == self._num_steps)

    @full_precision
    def row(self, progress: ProgressReporter) -> dict[str, Any]:
        """A row of the log; at checkpoints, samples and densities are drawn first."""
        run = self._training.as_run()
        if self._is_drawn(run.step):
            progress.once("drawing samples and densities")
            draw_samples(self._folder, self._key_figures, run, self._held_out)
        progress.once("evaluating held-out data")
        return self._evaluated(self._few, self._settings.estimator)

    @full_precision
    def summary(self) -> dict[str, Any]:
        """Draws samples and densities; returns the row of the final evaluation."""
        draw_samples(self._folder, self._key_figures, self._training.as_run(), self._held_out)
        return self._evaluated(self._held_out, self._settings.estimator.final) | {"eval/is_final": True}

    def draw(self, row: Mapping[str, Any]) -> None:
        """Draws the newest reconstructions and the curves of all rows, if `row` is at a checkpoint or final."""
        run = self._training.as_run()
        if is_final(row) or self._is_drawn(run.step):
            draw_held_out(self._folder, run, self._held_out, self._again)

    def _is_drawn(self, step: int) -> bool:
        return step % self._draw_every == 0 and step < self._num_steps  # the last evaluation follows, with its figures

    def _evaluated(self, x: Array, estimator: Estimator) -> dict[str, Any]:
        run, (key_likelihood, key_reconstruction) = self._training.as_run(), self._keys
        numbers, self._again = reconstruction.evaluate(key_reconstruction, run, self._reconstructed)
        likelihood = log_likelihood.evaluate(key_likelihood, run, x, estimator, self._proposal)
        row = _scalars_of({"log_likelihood": likelihood, "reconstruction": numbers})
        self._training.check_finite(row, run.step)
        return {"step": run.step, **row}


def _scalars_of(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of a log row."""
    return {
        f"eval/{_LOGGED[metric][name]}": value
        for metric, values in numbers.items()
        for name, value in values.items()
        if name in _LOGGED[metric]
    }
