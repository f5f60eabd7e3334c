"""Evaluates a model during training, and draws its figures."""

from collections.abc import Mapping
from typing import Any

from jax import Array

from kaem_jax.data import Dataset
from kaem_jax.devices.transforms import full_precision
from kaem_jax.evaluation.evaluators import (
    HeldOutLikelihood,
    Reconstruction,
    SampleComparison,
    prepare_features,
    scalars_of,
)
from kaem_jax.evaluation.gallery import draw_judged, draw_samples
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.progress import Progress
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.held_out_rows import is_final
from kaem_jax.training.keys import RunKeys, training_evaluation_keys
from kaem_jax.training.log import ProgressReporter

__all__ = ["Judge", "make_comparison"]


class Judge:
    """Evaluates a model during training and draws its figures, always with the same keys and data."""

    def __init__(
        self,
        training: Progress,
        config: Experiment,
        folder: RunFolder,
        keys: RunKeys,
        held_out: Array,
        comparison: SampleComparison | None,
    ):
        settings = config.evaluation
        self._training, self._settings, self._folder = training, settings, folder
        self._num_steps, self._key_figures, self._held_out = config.train.num_steps, keys.figures, held_out
        self._comparison, self._draw_every = comparison, config.checkpoint.every_steps
        self._again: Array | None = None
        key_held_out, key_reconstruction = training_evaluation_keys(keys.evaluation)
        few = held_out[: settings.num_data]
        self._reconstruction = Reconstruction(key_reconstruction, held_out[: settings.num_reconstructions])
        self._likelihood = HeldOutLikelihood(key_held_out, few, settings.estimator, config.proposal())
        self._final = HeldOutLikelihood(key_held_out, held_out, settings.estimator.final, config.proposal())

    def is_due(self, step: int) -> bool:
        """Whether the model is evaluated after this step."""
        return step > 0 and (step % self._settings.every_steps == 0 or step == self._num_steps)

    @full_precision
    def row(self, progress: ProgressReporter) -> dict[str, Any]:
        """Evaluates the model and returns the row; at checkpoints it draws samples and densities first."""
        run = self._training.as_run()
        if self._is_drawn(run.step):
            with progress.doing("drawing samples and densities"):
                draw_samples(self._folder, self._key_figures, run, self._held_out)
        with progress.doing("evaluating held-out data"):
            row = self._evaluated(self._likelihood)
        every = self._settings.samples_every_steps
        if self._comparison is not None and (run.step % every == 0 or run.step == self._num_steps):
            with progress.doing("comparing samples with held-out data"):
                found = self._comparison.run(run)
            row |= scalars_of(found)
            for name, numbers in found.items():
                if "reason" in numbers:
                    progress.warn(f"{name} is left out: {numbers['reason']}")
        return row

    @full_precision
    def summary(self) -> dict[str, Any]:
        """Plots samples and densities; returns the row of the final evaluation."""
        draw_samples(self._folder, self._key_figures, self._training.as_run(), self._held_out)
        return self._evaluated(self._final) | {"eval/is_final": True}

    def draw(self, row: Mapping[str, Any]) -> None:
        """Draws the newest reconstructions and the curves of all rows, if `row` is at a checkpoint or final."""
        run = self._training.as_run()
        if is_final(row) or self._is_drawn(run.step):
            draw_judged(self._folder, run, self._held_out, self._again)

    def _is_drawn(self, step: int) -> bool:
        return step % self._draw_every == 0 and step < self._num_steps  # the last evaluation follows, with its figures

    def _evaluated(self, likelihood: HeldOutLikelihood) -> dict[str, Any]:
        run = self._training.as_run()
        numbers, self._again = self._reconstruction.with_means(run)
        row = scalars_of(likelihood.run(run) | numbers)
        self._training.check_finite(row, run.step)
        return {"step": run.step, **row}


def make_comparison(folder: RunFolder, config: Experiment, dataset: Dataset) -> SampleComparison | None:
    """The comparison of samples during training, None if none is asked for."""
    settings = config.evaluation
    if not settings.samples_every_steps:
        return None
    extractor = prepare_features(config, dataset, settings.sample_metrics, settings.features, folder.classifier)
    return SampleComparison(dataset, settings.sample_metrics, extractor, settings.num_images, seed=config.seed)
