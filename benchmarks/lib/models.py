"""The models that quality.py compares: settings that change the experiment `tiny` of each set of images."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np

from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.model import Params
from kaem_jax.priors import ClusteredPrior, Prior, fit_prior
from lib.baselines import Vamp, fit_flow, fit_flow_matching
from lib.measure import experiment

_MIXTURE = (
    "prior.kind=mixture", "prior.num_components=19", "prior.base_activation=silu", "prior.base_scale=0.1",
    "prior.domain=(-3.0, 3.0)", "prior.grid_size=20", "prior.proportions=uniform",
)  # fmt: skip
_ULA = (
    "posterior.kind=langevin", "posterior.encoder=None", "posterior.kernel=ula", "posterior.num_steps=20",
    "posterior.step_size=0.02", "optimizer.prior.learning_rate=1e-3", "optimizer.decoder.learning_rate=1e-3",
)  # fmt: skip
_DIAGONAL = ("prior.map=diagonal", "prior.proportions=uniform")
_NORMAL = (
    "prior.num_clusters=1", "prior.shape=gaussian", "prior.spread=0", "optimizer.prior.learning_rate=0", *_DIAGONAL,
)  # fmt: skip
MODELS: dict[str, tuple[str, ...]] = {
    # The experiment itself, and the same with Gaussian clusters.
    "kaem": (),
    "kaem_gaussian": ("prior.shape=gaussian",),
    "clustered": ("prior.shape=learned",),
    "mixture": _MIXTURE,
    # N(0, I), which does not move.
    "vae": _NORMAL,
    "vamp": _NORMAL,  # whose posterior, `baselines.Vamp`, replaces the prior
    "gaussians": ("prior.shape=gaussian",),
    "full": ("prior.shape=gaussian", "prior.num_clusters=40", "prior.map=full", "prior.proportions=learned"),
    "ula_from_prior": (*_MIXTURE, *_ULA),
}
# Where the experiment's own clusters are others.
_CLUSTERS = {
    "mnist": ("prior.num_clusters=100", *_DIAGONAL),
    "svhn": ("prior.num_clusters=100", "prior.spread=0.7", "prior.map=shared", "prior.proportions=uniform"),
    "cifar10": ("prior.num_clusters=40", "prior.spread=0.2", *_DIAGONAL),
}
STAGED = ("kaem", "kaem_gaussian")
# Shares of the time for their stages; the rest is for the fit between them.
SHARES = {"mnist": (0.35, 0.5), "svhn": (0.55, 0.4), "cifar10": (0.45, 0.35)}
# The experiments of these begin with a prior that hardly moves.
_RATES = {"svhn": ("optimizer.prior.learning_rate=1e-2",), "cifar10": ("optimizer.prior.learning_rate=5e-3",)}
Fit = Callable[[int, np.ndarray], tuple[Prior, Params]]  # by seed and codes
_FITS: dict[str, Fit] = {
    "flow": functools.partial(fit_flow, num_updates=1500),
    "flow_matching": functools.partial(fit_flow_matching, num_updates=4000),
}


def base_of(model: str) -> str:
    """The model that is trained; MODEL_then_FIT has its prior fitted to posterior draws of training images."""
    return model.partition("_then_")[0]


def fit_of(model: str) -> Fit | None:
    """The fit in the last part of a model's time, such as of 10_gaussians, or None."""
    *_, name = model.partition("_then_")
    if not name or name in _FITS:
        return _FITS.get(name)
    num, kind = name.split("_")
    shape: Literal["gaussian", "learned"] = "gaussian" if kind == "gaussians" else "learned"

    def fit(seed: int, codes: np.ndarray) -> tuple[Prior, Params]:
        return fit_prior(jax.random.key(seed), codes, full_clusters(codes.shape[1], int(num), shape))

    return fit


def full_clusters(num_latents: int, num: int, shape: Literal["gaussian", "learned"]) -> ClusteredPrior:
    """Clusters with full maps."""
    return ClusteredPrior(num_latents=num_latents, num_clusters=num, map="full", shape=shape, proportions="learned")


# In words.
NAMES = {
    "kaem": "**KAEM: encoder, then kept chains**",
    "kaem_gaussian": "the same with Gaussian clusters",
    "vae": "N(0, I): a VAE",
    "vamp": "VampPrior, 100 pseudo-inputs",
    "mixture": "the paper's prior, 19 components",
    "vae_then_flow": "VAE, then a coupling flow",
    "vae_then_flow_matching": "VAE, then flow matching",
    "vae_then_10_gaussians": "VAE, then 10 full Gaussians",
    "vae_then_100_gaussians": "VAE, then 100 full Gaussians",
    "vae_then_400_gaussians": "VAE, then 400 full Gaussians",
    "vae_then_10_affine": "VAE, then 10 affine clusters",
    "vae_then_40_affine": "VAE, then 40 affine clusters",
    "clustered": "100 clusters with learned shapes, jointly",
    "gaussians": "Gaussians, jointly",
    "gaussians_then_40_gaussians": "jointly, then 40 full Gaussians",
    "gaussians_then_10_affine": "jointly, then 10 affine clusters",
    "gaussians_then_40_affine": "jointly, then 40 affine clusters",
    "gaussians_then_100_affine": "jointly, then 100 affine clusters",
    "full": "40 full Gaussians, jointly",
    "full_then_40_gaussians": "40 full Gaussians, jointly, then again",
    "full_then_40_affine": "40 full, jointly, then 40 affine clusters",
}
_EVALUATION = (
    "train.log_every=1", "evaluation.every_steps=1", "checkpoint.every_steps=1",
    "evaluation.estimator.kind=ais", "evaluation.estimator.num_chains=4", "evaluation.estimator.num_temperatures=64",
    "evaluation.estimator.batch_size=64", "evaluation.proposal.kind=laplace", "evaluation.proposal.num_modes=2",
    "evaluation.proposal.num_draws=1000", "evaluation.proposal.num_steps=10", "evaluation.proposal.encoder=None",
)  # fmt: skip


def configure(name: str, model: str, data_dir: str, num_steps: Sequence[int], *settings: str) -> Experiment:
    """The experiment of `model` for the data `name`, evaluated as all are; `settings` replace its own.

    `num_steps` are the updates of each stage; only the models of `STAGED` have several.
    """
    first, *later = num_steps
    run = [f"data.dir={data_dir}", f"train.num_steps={first}", f"train.refit={model in STAGED}"]
    run += [f"stages.{i}.num_steps={length}" for i, length in enumerate(later)]
    clusters = _CLUSTERS.get(name, ()) if model in ("clustered", "gaussians", "full") else ()
    rates = () if model in STAGED else _RATES.get(name, ())
    config = experiment(f"{name}:tiny", (*_EVALUATION, *rates, *clusters, *MODELS[model], *run, *settings))
    if model in STAGED:
        return config
    config = dataclasses.replace(config, stages=())
    if model != "vamp":
        return config
    return dataclasses.replace(config, posterior=Vamp(encoder=config.posterior.encoder))  # type: ignore[attr-defined]
