"""Evaluators: each file computes one kind of number, and says in a sentence what it means."""

import abc
import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jax import Array

from kaem_jax.app.data import Dataset
from kaem_jax.app.evaluation.features import Extractor
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import Draws
from kaem_jax.jax_utils.keys import EvaluationKeys, evaluation_keys
from kaem_jax.settings.registry import Registry

Numbers = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A run with the data that it is evaluated on.

    Attributes:
      run: the model, its parameters and its posterior.
      dataset: all data; those of a run's `data.num_held_out` are `x`.
      rows: the held-out data that are evaluated, int [B].
      x: these data, [B, *data_shape], as the model takes them.
      wanted: names of the metrics that are wanted.
      extractor: features of images, or None.
      num_images: number of generated images.
      seed: of all random numbers.
    """

    run: Run
    dataset: Dataset
    rows: np.ndarray
    x: Array
    wanted: Collection[str]
    extractor: Extractor | None
    num_images: int
    seed: int

    @property
    def keys(self) -> EvaluationKeys:
        """A key for each quantity."""
        return evaluation_keys(self.seed)

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of `x`, int [B], if there are any."""
        return self.dataset.held_out_labels and self.dataset.held_out_labels(self.rows)

    @property
    def few(self) -> Array:
        """The first `evaluation.num_reconstructions` of `x`, for what takes several draws of each datum."""
        return self.x[: self.run.config.evaluation.num_reconstructions]

    @functools.cached_property
    def draws(self) -> tuple[Draws, Draws]:
        """Two independent samples of the posteriors of `few`, which evaluators and figures share."""
        run, keys = self.run, self.keys
        first, second = (
            run.posterior.draw(key, run.model, run.params, self.few) for key in (keys.reconstruction, keys.activity)
        )
        return first, second


class Evaluator(abc.ABC):
    """Computes numbers of a trained run; `kaem evaluate --metrics my_module:MyEvaluator` runs your own."""

    @abc.abstractmethod
    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        """Numbers by the name of their metric, or {name: {"reason": why there are none}}; empty if none suits."""

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        """A sentence on the numbers of one metric; it may be empty."""
        return ""


_HERE = "kaem_jax.app.evaluation.evaluators"
SAMPLE_METRICS = ("fid", "kid", "precision_recall", "density_coverage", "copying")
_ENTRIES = {
    "log_likelihood": f"{_HERE}.log_likelihood:LogLikelihood",
    "reconstruction": f"{_HERE}.reconstruction:Reconstruction",
    "active_latents": f"{_HERE}.active_latents:ActiveLatents",
    "clusters": f"{_HERE}.clusters:Clusters",
    "mixing": f"{_HERE}.mixing:Mixing",
    **dict.fromkeys(SAMPLE_METRICS, f"{_HERE}.sample_comparison:SampleComparison"),
    "two_sample": f"{_HERE}.sample_comparison:ValueComparison",
    "latent_use": f"{_HERE}.texts:LatentUse",
}
METRICS = tuple(_ENTRIES)
EVALUATORS = Registry("metric", f"{_HERE}:Evaluator", **_ENTRIES)
