"""How models of images are evaluated: nats of held-out images by annealing from Laplace approximations, and distances
of samples to held-out images, in features of a classifier of the training data.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.app.data import Dataset, DataSettings, to_pixels
from kaem_jax.app.evaluation.evaluators import log_likelihood
from kaem_jax.app.evaluation.evaluators.sample_comparison import compare
from kaem_jax.app.evaluation.features import Extractor, make_extractor
from kaem_jax.app.evaluation.generate import sample_in_batches
from kaem_jax.app.runs.load import Run
from kaem_jax.model import Params
from kaem_jax.priors import Prior
from kaem_jax.training.batch import to_unit_interval
from kaem_jax.training.refit import posterior_codes
from lib.measure import timed
from lib.models import fit_of

# The log p of one image by two seeds of one model differs by tens of nats (docs/decisions/image-benchmarks.md).
NUM_IMAGES, NUM_SHOWN, NUM_EVALUATED = 2000, 12, 256
NUM_TIMED = 4096  # latents are drawn in blocks of so many
METRICS = ("fid", "kid", "precision_recall", "density_coverage")


def classifier(folder: pathlib.Path, data: DataSettings, dataset: Dataset) -> Extractor:
    """Features of a classifier of the training data, which is kept in `folder`, one for each split."""
    own = folder / f"classifier_{data.name.removesuffix('_cropped')}_{data.held_out}.npz"
    return make_extractor("classifier", own, data.name, dataset)


def evaluate_likelihood(run: Run, dataset: Dataset, num: int = NUM_EVALUATED) -> dict[str, Any]:
    """Nats of held-out images, unless the prior has no normaliser."""
    numbers: dict[str, Any] = {"sigma": getattr(run.config.likelihood, "sigma", None)}
    if not run.model.prior.is_normalized:
        return numbers
    x, estimator = to_unit_interval(jnp.asarray(dataset.held_out[:num])), run.config.evaluation.estimator
    found = log_likelihood.evaluate(jax.random.key(7), run, x, estimator, run.config.proposal(), of_pixels=True)
    wanted = ("nats", "standard_error", "ess", "is_bound", "bits_per_dimension_of_256_levels")
    return numbers | {key: found[key] for key in wanted}


def draw_images(key: jax.Array, run: Run, num: int) -> np.ndarray:
    """Samples [num, H, W, C] in [0, 1]."""
    return np.concatenate(list(sample_in_batches(key, run.model, run.params, num)))


def evaluate_samples(run: Run, dataset: Dataset, extractor: Extractor) -> tuple[np.ndarray, dict[str, Any]]:
    """Some samples to look at, and the numbers of all; training images are the yardstick of distances."""

    def training_images(num: int) -> np.ndarray:
        rows = np.sort(np.random.default_rng(0).permutation(len(dataset.train))[:num])
        return to_pixels(dataset.train[rows])

    images = to_pixels(draw_images(jax.random.key(0), run, NUM_IMAGES))
    found = compare(METRICS, images, to_pixels(dataset.held_out[:NUM_IMAGES]), training_images, extractor)
    numbers = {
        "frechet_distance": found["fid"]["value"],
        "frechet_distance_of_training_images": found["fid"]["value_of_training_images"],
        "kernel_distance": found["kid"]["value"],
        **{key: found["precision_recall"][key] for key in ("precision", "recall")},
        **{key: found["density_coverage"][key] for key in ("density", "coverage")},
    }
    return images[:NUM_SHOWN], numbers


def evaluate(run: Run, dataset: Dataset, extractor: Extractor) -> tuple[np.ndarray, dict[str, Any]]:
    """Some samples of a run, and all of its numbers."""
    images, numbers = evaluate_samples(run, dataset, extractor)
    numbers = evaluate_likelihood(run, dataset) | numbers
    _, seconds = timed(draw_images, jax.random.key(1), run, NUM_TIMED)  # compiled by now
    return images, numbers | {"seconds_for_10000_samples": seconds * 10_000 / NUM_TIMED}


def refitted(run: Run, model: str, dataset: Dataset, seed: int) -> Run:
    """The run with the model's prior, fitted to one posterior draw of each training datum."""
    fit = fit_of(model)
    assert fit is not None
    x, key = dataset.train[np.arange(len(dataset.train))], jax.random.key(seed)
    [codes] = posterior_codes(key, run.model, run.params, x, run.training_posterior, 1)
    return with_prior(run, *fit(seed, codes))


def with_prior(run: Run, prior: Prior, params: Params) -> Run:
    """The run with another prior."""
    model = dataclasses.replace(run.model, prior=prior)
    return dataclasses.replace(run, model=model, params=run.params | {"prior": params})
