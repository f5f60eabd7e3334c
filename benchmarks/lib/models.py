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
# A model whose prior is fitted to posterior draws of training images in the last part of its time: by seed and codes.
Fit = Callable[[int, np.ndarray], tuple[Prior, Params]]


def _clusters(num_clusters: int, shape: Literal["gaussian", "learned"]) -> Fit:
    def fit(seed: int, codes: np.ndarray) -> tuple[Prior, Params]:
        prior = ClusteredPrior(
            num_latents=codes.shape[1], num_clusters=num_clusters, map="full", proportions="learned", shape=shape
        )
        return fit_prior(jax.random.key(seed), codes, prior)

    return fit


REFITS: dict[str, tuple[str, Fit]] = {
    "vae_then_10_gaussians": ("vae", _clusters(10, "gaussian")),
    "vae_then_100_gaussians": ("vae", _clusters(100, "gaussian")),
    "vae_then_400_gaussians": ("vae", _clusters(400, "gaussian")),
    "vae_then_flow": ("vae", functools.partial(fit_flow, num_updates=1500)),
    "vae_then_flow_matching": ("vae", functools.partial(fit_flow_matching, num_updates=4000)),
    "vae_then_10_affine": ("vae", _clusters(10, "learned")),
    "vae_then_40_affine": ("vae", _clusters(40, "learned")),
    "gaussians_then_10_affine": ("gaussians", _clusters(10, "learned")),
    "gaussians_then_100_affine": ("gaussians", _clusters(100, "learned")),
    "gaussians_then_40_gaussians": ("gaussians", _clusters(40, "gaussian")),
    "gaussians_then_40_affine": ("gaussians", _clusters(40, "learned")),
    "full_then_40_gaussians": ("full", _clusters(40, "gaussian")),
    "full_then_40_affine": ("full", _clusters(40, "learned")),
}
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
    "gaussians": "diagonal Gaussians, jointly",
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
