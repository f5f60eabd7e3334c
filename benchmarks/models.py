"""The models that quality.py compares: settings that change the experiment `tiny` of each set of images."""

import dataclasses
from typing import Literal

from measure import experiment

from kaem_jax.priors import ClusteredPrior
from kaem_jax.runs.experiment import Experiment

_MANY_LATENTS = (
    "prior.num_latents=100", "posterior.encoder.standardize=True", "posterior.encoder.readout_scale=0.03",
    "optimizer.prior.learning_rate=5e-3", "optimizer.decoder.learning_rate=2e-3",
)  # fmt: skip
_CLUSTERS = ("prior.num_clusters=40", "prior.spread=0.2", "prior.map=diagonal")
# The experiment, what changes it, and what changes its clustered prior.
DATA: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "mnist": ("mnist:tiny", (), ()),
    "svhn": ("svhn:tiny", (), ()),
    "svhn_100": ("svhn:tiny", _MANY_LATENTS, _CLUSTERS),
    "cifar10": ("cifar10:tiny", (), ()),
}
_RATES = ("optimizer.prior.learning_rate=1e-3", "optimizer.decoder.learning_rate=1e-3")  # without an encoder's bound
_MIXTURE = (
    "prior.kind=mixture", "prior.num_components=19", "prior.base_activation=silu", "prior.base_scale=0.1",
    "prior.domain=(-3.0, 3.0)", "prior.grid_size=20",
)  # fmt: skip
_ULA = (
    *_RATES, "posterior.kind=langevin", "posterior.encoder=None", "posterior.kernel=ula", "posterior.num_steps=20",
    "posterior.step_size=0.02",
)  # fmt: skip
# `ddpm` is in ddpm.py.
MODELS: dict[str, tuple[str, ...]] = {
    "clustered": ("prior.shape=learned",),
    "mixture": _MIXTURE,
    # N(0, I), which does not move.
    "vae": ("prior.num_clusters=1", "prior.shape=gaussian", "prior.spread=0", "optimizer.prior.learning_rate=0"),
    "gaussians": (),
    "full_gaussians": ("prior.map=full",),
    "neural": (*_ULA, "prior.kind=neural", "evaluation.proposal=prior"),
    "ula_from_prior": (*_MIXTURE, *_ULA),
}  # fmt: skip
# A model whose prior is fitted to posterior draws of training images in the last part of its time.
_SHAPES: dict[str, Literal["gaussian", "learned"]] = {"gaussians": "gaussian", "affine": "learned"}
_FULL = ClusteredPrior(num_latents=1, map="full", proportions="learned")
REFITS: dict[str, tuple[str, ClusteredPrior]] = {
    f"{model}_then_{size}_{name}": (model, dataclasses.replace(_FULL, num_clusters=size, shape=shape))
    for model in ("vae", "gaussians")
    for size in (10, 40)
    for name, shape in _SHAPES.items()
}
_EVALUATION = (
    "train.log_every=1", "evaluation.every_steps=1", "checkpoint.every_steps=1",
    "evaluation.estimator.kind=ais", "evaluation.estimator.num_chains=8", "evaluation.estimator.num_temperatures=128",
    "evaluation.estimator.batch_size=64", "evaluation.proposal.kind=laplace", "evaluation.proposal.num_modes=2",
    "evaluation.proposal.num_draws=1000", "evaluation.proposal.num_steps=10",
)  # fmt: skip


def configure(name: str, model: str, data_dir: str, num_steps: int, *settings: str) -> Experiment:
    """The experiment of `model` for the data `name`, evaluated as all are; `settings` replace its own."""
    file, changes, of_clusters = DATA[name]
    changes += of_clusters if model in ("clustered", "gaussians") else ()
    run = f"data.dir={data_dir}", f"train.num_steps={num_steps}"
    return experiment(file, (*changes, *_EVALUATION, *MODELS[model], *run, *settings))
