"""Metrics of samples against held-out data that are no images: tables and fields."""

import dataclasses
from typing import Any

import numpy as np

from kaem_jax.data import Dataset, Pixels, Text
from kaem_jax.evaluation.evaluators.base import VALUE_METRICS, Numbers
from kaem_jax.evaluation.generate import sample_with_noise
from kaem_jax.evaluation.metrics.darcy import DarcyEquation
from kaem_jax.evaluation.metrics.spectrum import radial_spectrum
from kaem_jax.evaluation.metrics.two_samples import classifier_two_sample, energy_distance
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = ["ValueComparison"]

_FEWEST = 10  # two for each of the classifier's five folds
_MOST_IN_PAIRS = 5000  # rows: distances of all pairs take 200 MB then, and grow with the square


@dataclasses.dataclass(frozen=True)
class ValueComparison:
    """Samples, with the likelihood's noise, against the held-out data, both standardised.

    Attributes:
      dataset: its held-out part is compared with the samples; for fields the spectrum of as many training fields is
        compared too, as a yardstick.
      metrics: names from `VALUE_METRICS`; others are ignored.
      seed: decides the samples.
    """

    dataset: Dataset
    metrics: tuple[str, ...]
    seed: int = 0

    def run(self, run: Run) -> Numbers:
        wanted = [name for name in self.metrics if name in VALUE_METRICS]
        if isinstance(run.form, Pixels | Text) or not wanted:
            return {}
        real = _complete(np.asarray(self.dataset.held_out))
        if len(real) < _FEWEST:
            return {name: {"reason": f"{len(real)} complete held-out data are too few"} for name in wanted}
        fake = sample_with_noise(sample_key(self.seed), run.model, run.params, len(real))
        flat_real, flat_fake = (values.reshape(len(values), -1) for values in (real, fake))
        results: dict[str, dict[str, Any]] = {}
        sizes = {"num_real": len(real), "num_generated": len(fake)}
        if "two_sample" in wanted:
            area, error = classifier_two_sample(flat_real, flat_fake, self.seed)
            results["two_sample"] = {"value": area, "standard_error": error, **sizes}
        if "energy_distance" in wanted:
            rows = np.random.default_rng(self.seed).permutation(len(real))[:_MOST_IN_PAIRS]
            distance = energy_distance(flat_real[rows], flat_fake[: len(rows)])
            results["energy_distance"] = {"value": distance, "num_real": len(rows), "num_generated": len(rows)}
        if "spectrum" in wanted and real.ndim == 4:
            rows = np.random.default_rng(self.seed).permutation(len(self.dataset.train))[: len(real)]
            train = _complete(np.asarray(self.dataset.train[np.sort(rows)]))
            results["spectrum"] = {
                "mean_log_ratio": _spectral_gap(fake, real),
                "mean_log_ratio_of_training_fields": _spectral_gap(train, real),
                **sizes,
            }
        if "darcy" in wanted and real.ndim == 4:
            results["darcy"] = _darcy(run.form.decode(real), run.form.decode(fake)) | sizes
        return results


def _complete(values: np.ndarray) -> np.ndarray:
    """Data of which nothing is missing."""
    return values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]


def _spectral_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean of |log ratio| of the power of fields [N, H, W, C], over wave numbers and channels.

    A channel that is constant in every one of `theirs` has no power to compare, and is left out.
    """
    gaps = []
    for channel in np.flatnonzero(np.ptp(theirs, axis=(1, 2)).max(axis=0)):
        (_, power), (_, wanted) = (radial_spectrum(values[..., channel]) for values in (ours, theirs))
        gaps.append(np.mean(np.abs(np.log(power / wanted))))
    return float(np.mean(gaps))


def _darcy(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """How far pairs (coefficient, pressure) [N, H, W, 2] are from Darcy's equation, or the reason why none is told."""
    coefficients = np.unique(real[..., 0])
    if real.shape[-1] != 2 or len(coefficients) != 2:
        return {"reason": "fields are no pairs of a coefficient of two values and a pressure (data.columns)"}
    threshold = np.mean(coefficients)
    (high, pressure), (ours_high, ours) = ((v[..., 0] > threshold, v[..., 1].astype(float)) for v in (real, fake))
    equation = DarcyEquation.fit(high, pressure)
    return {
        "relative_l2": equation.relative_l2(ours_high, ours),
        "relative_l2_held_out": equation.relative_l2(high, pressure),
        "relative_l2_of_other_coefficients": equation.relative_l2(high, np.roll(pressure, 1, axis=0)),
        "contrast": equation.contrast,
    }
