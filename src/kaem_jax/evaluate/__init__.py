"""The whole evaluation of a trained model: likelihood, reconstructions, latents, samples."""

import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.config import Config, ConfigError
from kaem_jax.data import Dataset, is_image, to_pixels, to_unit_interval
from kaem_jax.features import Extractor, LabelledImages, make_extractor
from kaem_jax.metrics.comparison import FEATURE_METRICS, SAMPLE_METRICS, compare
from kaem_jax.metrics.held_out import effort, held_out_log_likelihood
from kaem_jax.metrics.latents import activity
from kaem_jax.metrics.reconstruction import reconstruct
from kaem_jax.run import Run
from kaem_jax.sample import sample_in_batches, sample_key

__all__ = ["METRICS", "compare_samples", "evaluate_model", "evaluation_keys", "prepare_features"]

METRICS = ("log_likelihood", "reconstruction", "active_latents", *SAMPLE_METRICS)
_ACTIVE = 0.01
_MAX_TRAIN_IMAGES = 10_000


def evaluation_keys(seed: int) -> jax.Array:
    """Keys for the likelihood, reconstructions, active latents and figures: none that training or samples use."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), jnp.uint32(2**32 - 1)), 4)


def prepare_features(
    config: Config, dataset: Dataset, metrics: tuple[str, ...], features: str, classifier_file: pathlib.Path
) -> Extractor | None:
    """The feature extractor that `metrics` need, trained where it has to be; None where they need none.

    Args:
      config: of the run.
      dataset: of `config.data`.
      metrics: of `METRICS`.
      features: see `kaem_jax.features.make_extractor`.
      classifier_file: where the classifier of `features="classifier"` is kept.

    Raises:
      ConfigError: the features cannot be had.
    """
    if not any(name in FEATURE_METRICS for name in metrics):
        return None

    def labelled() -> LabelledImages | None:
        if dataset.train_labels is None or dataset.test_labels is None or not is_image(dataset.data_shape):
            return None
        rows, test_rows = np.arange(len(dataset.train)), np.arange(len(dataset.test))
        return LabelledImages(
            config.data.name,
            to_pixels(dataset.train[rows]),
            dataset.train_labels(rows),
            to_pixels(dataset.test),
            dataset.test_labels(test_rows),
        )

    return make_extractor(features, classifier_file, labelled)


def evaluate_model(run: Run, dataset: Dataset, metrics: tuple[str, ...], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Judges a trained model by the held-out data, without comparing samples.

    Args:
      run: the model.
      dataset: of `run.config.data`; the first `num_held_out` of its held-out data are taken.
      metrics: those of `METRICS` that are no sample metrics; others are passed over.
      seed: of everything that is drawn.

    Returns:
      for each metric its numbers and the settings that repeat them.
    """
    key_likelihood, key_posterior, key_activity, _ = evaluation_keys(seed)
    settings = run.config.evaluation
    test = dataset.test[: run.config.data.num_held_out or None]
    few = to_unit_interval(jnp.asarray(test[: settings.num_reconstructions]))
    posterior = run.config.evaluation_posterior
    results: dict[str, dict[str, Any]] = {}
    if "log_likelihood" in metrics:
        started = time.perf_counter()
        results["log_likelihood"] = _log_likelihood(key_likelihood, run, test)
        results["log_likelihood"]["seconds"] = round(time.perf_counter() - started, 2)
    if "reconstruction" in metrics:
        _, error = reconstruct(key_posterior, run.model, run.params, few, posterior, **run.adapted)
        results["reconstruction"] = {
            "mean_squared_error": float(error),
            "num_data": len(few),
            "posterior_steps": posterior.num_steps,
        }
    if "active_latents" in metrics and len(few) < 2:
        results["active_latents"] = {"reason": f"{len(few)} held-out datum has no variance over data"}
    elif "active_latents" in metrics:
        active = np.asarray(activity(key_activity, run.model, run.params, few, posterior, **run.adapted))
        results["active_latents"] = {
            "count": int(np.sum(active > _ACTIVE)),
            "of": len(active),
            "threshold": _ACTIVE,
            "num_data": len(few),
            "share_of_variance_that_data_decide": [round(float(a), 4) for a in active],
        }
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
        # Of cells 1 / 255 wide, which pixels are apart: what discrete models report, but without dequantisation noise.
        result["bits_per_dimension_of_256_levels"] = math.log2(255) - nats / bit_size
    return result | {
        "bits_standard_error": error / bit_size,
        "ess": float(values["ess"]),
        "ess_min": float(values["ess_min"]),
        "method": settings.method,
        name: number,
        "num_data": len(test),
    }


def compare_samples(
    run: Run,
    dataset: Dataset,
    metrics: tuple[str, ...],
    extractor: Extractor | None,
    *,
    num_images: int,
    points: str = "random",
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compares samples of a trained model with held-out images.

    Args:
      run: the model.
      dataset: all of its held-out part is compared with, however few data the likelihood is judged on.
      metrics: those of `METRICS` that are sample metrics; others are passed over.
      extractor: as `prepare_features` returns it for these metrics.
      num_images: generated images; as many real ones at most are compared with them.
      points: `random` or `sobol` draws of the generated images.
      seed: of the samples, which `python -m kaem_jax.sample` draws too with it, and of what is cut from the data.

    Returns:
      for each metric its numbers and the settings that repeat them, or the `reason` why it cannot be had.

    Raises:
      ConfigError: `points` is `sobol` and the prior has no quantiles.
    """
    metrics = tuple(name for name in metrics if name in SAMPLE_METRICS)
    if points == "sobol" and not run.model.prior.is_normalized:
        raise ConfigError(f"points 'sobol' need a prior with quantiles; that of {run.config.prior.kind!r} has none")
    if metrics and not is_image(dataset.data_shape):
        return {name: {"reason": f"data of shape {dataset.data_shape} are no images"} for name in metrics}
    if not metrics:
        return {}
    # Data may lie in the order of their classes: what is cut must be in a random one.
    rng = np.random.default_rng(seed)
    held_out = to_pixels(dataset.test[rng.permutation(len(dataset.test))[:num_images]])
    train_rows = np.sort(rng.permutation(len(dataset.train))[:_MAX_TRAIN_IMAGES])
    drawn = sample_in_batches(sample_key(seed), run.model, run.params, num_images, points)
    generated = np.concatenate([to_pixels(batch) for batch in drawn])
    results = compare(
        metrics,
        generated,
        held_out,
        lambda: to_pixels(dataset.train[train_rows]),
        extractor,
        independent=points == "random",
    )
    for result in results.values():
        if "reason" not in result:
            result["points"] = points
    return results
