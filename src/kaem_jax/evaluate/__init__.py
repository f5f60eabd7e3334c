"""The whole evaluation of a trained model: likelihood, reconstructions, latents, samples."""

import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.config import ConfigError
from kaem_jax.data import Dataset, to_pixels, to_unit_interval
from kaem_jax.features import Extractor, LabelledImages, make_extractor
from kaem_jax.metrics.comparison import FEATURE_METRICS, SAMPLE_METRICS, compare
from kaem_jax.metrics.held_out import effort, held_out_log_likelihood
from kaem_jax.metrics.latents import activity
from kaem_jax.metrics.reconstruction import reconstruct
from kaem_jax.run import Run
from kaem_jax.sample import sample_in_batches

__all__ = ["METRICS", "evaluate_run"]

METRICS = ("log_likelihood", "reconstruction", "active_latents", *SAMPLE_METRICS)
_ACTIVE = 0.01
_MAX_TRAIN_IMAGES = 10_000


def evaluate_run(
    run: Run,
    dataset: Dataset,
    metrics: tuple[str, ...] = METRICS,
    *,
    features: str = "classifier",
    classifier_file: pathlib.Path,
    num_images: int = 5000,
    points: str = "random",
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Judges a trained model on data that it has not seen.

    Args:
      run: the model.
      dataset: of `run.config.data`; its held-out part may be larger than the configured `num_held_out`, which the
        likelihood keeps to, while samples are compared with all of it.
      metrics: of `METRICS`.
      features: for the metrics on features; see `kaem_jax.features.make_extractor`.
      classifier_file: where the classifier of `features="classifier"` is kept.
      num_images: generated images; as many real ones at most are compared with them.
      points: `random` or `sobol` draws of the generated images.
      seed: of everything that is drawn.

    Returns:
      for each metric its numbers and the settings that repeat them. Metrics of images are left out, with the `reason`,
      where the data are no images, and those on features where `features` is `classifier` and there are no labels.

    Raises:
      ConfigError: a metric or a set of features is not known or cannot be had.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ConfigError(f"metric {unknown[0]!r} is not known; allowed: {', '.join(METRICS)}")
    keys = dict(zip(("likelihood", "posterior", "samples"), jax.random.split(jax.random.key(seed), 3), strict=True))
    settings = run.config.evaluation
    test = dataset.test[: run.config.data.num_held_out or None]
    few = to_unit_interval(jnp.asarray(test[: settings.num_reconstructions]))
    posterior = run.config.evaluation_posterior
    results: dict[str, dict[str, Any]] = {}

    if "log_likelihood" in metrics:
        started = time.perf_counter()
        results["log_likelihood"] = _log_likelihood(keys["likelihood"], run, test)
        results["log_likelihood"]["seconds"] = round(time.perf_counter() - started, 2)
    if "reconstruction" in metrics:
        _, error = reconstruct(keys["posterior"], run.model, run.params, few, posterior, **run.adapted)
        results["reconstruction"] = {
            "mean_squared_error": float(error),
            "num_data": len(few),
            "posterior_steps": settings.posterior_steps,
        }
    if "active_latents" in metrics:
        active = np.asarray(activity(keys["posterior"], run.model, run.params, few, posterior, **run.adapted))
        results["active_latents"] = {
            "count": int(np.sum(active > _ACTIVE)),
            "of": len(active),
            "threshold": _ACTIVE,
            "num_data": len(few),
            "share_of_variance_that_data_decide": [round(float(a), 4) for a in active],
        }
    chosen = tuple(name for name in metrics if name in SAMPLE_METRICS)
    if chosen:
        results |= _compare_samples(
            keys["samples"], run, dataset, chosen, features, classifier_file, num_images, points
        )
    return results


def _log_likelihood(key: jax.Array, run: Run, test: np.ndarray) -> dict[str, Any]:
    settings = run.config.evaluation
    x = to_unit_interval(jnp.asarray(test))
    values = held_out_log_likelihood(key, run.model, run.params, x, settings, final=True)
    nats, error = float(values["log_likelihood"]), float(values["log_likelihood_standard_error"])
    bit_size = math.prod(run.model.data_shape) * math.log(2)
    name, number = effort(settings, final=True)
    result = {"nats": nats, "standard_error": error, "bits_per_dimension": -nats / bit_size}
    if test.dtype == np.uint8 and run.config.likelihood.kind != "bernoulli":
        # Of cells 1/256 wide: what discrete models report, without the noise of dequantisation.
        result["bits_per_dimension_of_256_levels"] = 8 - nats / bit_size
    return result | {
        "bits_standard_error": error / bit_size,
        "ess": float(values["ess"]),
        "ess_min": float(values["ess_min"]),
        "method": settings.method,
        name: number,
        "num_data": len(test),
    }


def _compare_samples(
    key: jax.Array,
    run: Run,
    dataset: Dataset,
    metrics: tuple[str, ...],
    features: str,
    classifier_file: pathlib.Path,
    num_images: int,
    points: str,
) -> dict[str, dict[str, Any]]:
    try:
        held_out = to_pixels(dataset.test[:num_images])
    except ValueError as error:
        return {name: {"reason": str(error)} for name in metrics}
    skipped = {}
    if features == "classifier" and dataset.train_labels is None and not classifier_file.exists():
        reason = "features 'classifier' need labels, and these data have none; name others with --features"
        skipped = {name: {"reason": reason} for name in metrics if name in FEATURE_METRICS}
        metrics = tuple(name for name in metrics if name not in skipped)
    drawn = sample_in_batches(key, run.model, run.params, num_images, points)
    generated = np.concatenate([to_pixels(batch) for batch in drawn])
    train = to_pixels(dataset.train[np.arange(min(len(dataset.train), _MAX_TRAIN_IMAGES))])

    def make_features() -> Extractor:
        return make_extractor(features, classifier_file, lambda: _labelled(run.config.data.name, dataset))

    results = compare(metrics, generated, held_out, train, make_features) if metrics else {}
    for result in results.values():
        result["points"] = points
    return results | skipped


def _labelled(source: str, dataset: Dataset) -> LabelledImages | None:
    if dataset.train_labels is None or dataset.test_labels is None:
        return None
    rows, test_rows = np.arange(len(dataset.train)), np.arange(len(dataset.test))
    return LabelledImages(
        source,
        to_pixels(dataset.train[rows]),
        dataset.train_labels(rows),
        to_pixels(dataset.test),
        dataset.test_labels(test_rows),
    )
