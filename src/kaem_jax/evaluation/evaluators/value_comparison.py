"""Samples of tables and fields against held-out data: two-sample tests, spectra, Darcy's equation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kaem_jax.data import Dataset, Pixels, Text
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.evaluators.darcy import compare_pairs
from kaem_jax.evaluation.generate import sample_with_noise
from kaem_jax.runs.run import Run
from kaem_jax.training.keys import sample_key

__all__ = [
    "VALUE_METRICS",
    "ValueComparison",
    "classifier_two_sample",
    "energy_distance",
    "radial_spectrum",
    "verdict_of_spectrum",
    "verdict_of_two_sample",
]

VALUE_METRICS = ("two_sample", "energy_distance", "spectrum", "darcy")
_FOLDS = 5
_FEWEST = 2 * _FOLDS
_MOST_IN_PAIRS = 5000  # rows: distances of all pairs take 200 MB then, and grow with the square
_ONE_SIDED = 2.13  # standard errors from five folds that a mean exceeds by chance once in twenty times (Student)


@dataclasses.dataclass(frozen=True)
class ValueComparison:
    """Samples, with the likelihood's noise, against the held-out data, both standardised.

    Attributes:
      dataset: its held-out part is compared with the samples; for fields the spectrum of as many training fields is
        compared too, as a yardstick.
      metrics: names of metrics; those that are not in `VALUE_METRICS` are ignored.
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
        sizes = {"num_real": len(real), "num_generated": len(fake)}
        results: Numbers = {}
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
            results["darcy"] = compare_pairs(run.form.decode(real), run.form.decode(fake)) | sizes
        return results


def _complete(values: np.ndarray) -> np.ndarray:
    """Data without missing values."""
    return values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'| for rows of `a` and `b`, unbiased; 0 in expectation for one distribution.

    Székely & Rizzo (2013), Energy statistics, equation 5.
    """
    from scipy.spatial.distance import cdist, pdist

    return float(2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean())


def classifier_two_sample(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Area under the ROC curve of a classifier between rows of `a` and `b`, cross-validated: mean and standard error.

    0.5 is chance, 1 perfect separation (Lopez-Paz & Oquab, 2017). Missing values are allowed.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    size = min(len(a), len(b))
    rows, classes = np.concatenate([a[:size], b[:size]]), np.repeat([0, 1], size)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    # With the default of 20 rows per leaf, folds of fewer than 40 rows could not be split.
    leaf = min(20, max(1, size // 10))
    model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=leaf, random_state=seed)
    areas = cross_val_score(model, rows, classes, cv=folds, scoring="roc_auc")
    return float(areas.mean()), float(areas.std(ddof=1) / np.sqrt(_FOLDS))


def verdict_of_two_sample(numbers: Mapping[str, Any]) -> str:
    """Whether samples differ from data significantly."""
    if numbers["value"] - 0.5 <= _ONE_SIDED * numbers["standard_error"]:  # an area below 0.5 is worse than chance
        return "samples and held-out data cannot be told apart"
    return "samples can be told from held-out data"


def radial_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of the two-dimensional Fourier transform of fields [N, H, W] on rings of whole wave numbers.

    Returns:
      wave numbers 1, 2, ... up to half the shorter side, and the power at each, averaged over the ring and the fields.
      By Parseval's theorem the total power is the mean square of a field.
    """
    height, width = fields.shape[1:]
    power = np.mean(np.abs(np.fft.fft2(fields)) ** 2, axis=0) / (height * width) ** 2
    along = [np.fft.fftfreq(size, 1 / size) for size in (height, width)]
    ring = np.round(np.hypot(*np.meshgrid(*along, indexing="ij"))).astype(int)
    wave_numbers = np.arange(1, min(height, width) // 2 + 1)
    return wave_numbers, np.array([power[ring == k].mean() for k in wave_numbers])


def _spectral_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean of |log ratio| of the power of fields [N, H, W, C], over wave numbers and channels that vary."""
    gaps = []
    for channel in np.flatnonzero(np.ptp(theirs, axis=(1, 2)).max(axis=0)):
        (_, power), (_, wanted) = (radial_spectrum(values[..., channel]) for values in (ours, theirs))
        gaps.append(np.mean(np.abs(np.log(power / wanted))))
    return float(np.mean(gaps))


def verdict_of_spectrum(numbers: Mapping[str, Any]) -> str:
    """The ratio of training fields, as a yardstick."""
    return f"as many training fields have {numbers['mean_log_ratio_of_training_fields']:.3g}"
