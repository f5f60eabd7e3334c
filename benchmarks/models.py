"""The models that benchmarks of quality compare, with one decoder and encoder for all, and how they are trained."""

import functools
import operator
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.data import Batch, Dataset, batch_indices
from kaem_jax.inference.proposals import Laplace
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.model import Model
from kaem_jax.runs.build import build_model, build_optimizer, build_prior, build_sampler, build_train_step, is_averaged
from kaem_jax.settings import default_dict, image_settings
from kaem_jax.runs.experiment import Experiment
from kaem_jax.training.state import TrainState, init_train_state


class Setup(NamedTuple):
    """What is particular to one set of images.

    Attributes:
      source: the data's name.
      channels: of the decoder, and in reverse order of the encoder.
      sigma: standard deviation of the likelihood.
      num_latents: of every model.
      rates: of prior and networks, where there is an encoder.
      encoder, clustered: settings of the encoder, and of the clustered prior.
    """

    source: str
    channels: tuple[int, ...]
    sigma: float
    num_latents: int = 40
    rates: tuple[float, float] = (1e-2, 4e-3)
    encoder: Mapping[str, Any] = {}
    clustered: Mapping[str, Any] = {}


_MANY_LATENTS: dict[str, Any] = {
    "num_latents": 100,
    "rates": (5e-3, 2e-3),
    "encoder": {"standardize": True, "readout_scale": 0.03},
    "clustered": {"inner": 40, "base_scale": 0.2, "grid_size": 5},
}
DATA: dict[str, Setup] = {
    "mnist": Setup("mnist", (64, 32), 0.3),
    "svhn": Setup("svhn_cropped", (128, 64, 32), 0.1, clustered={"mixing": "learned"}),
    "svhn_100": Setup("svhn_cropped", (128, 64, 32), 0.1, **_MANY_LATENTS),
    "cifar10": Setup("cifar10", (128, 64, 32), 0.1, **_MANY_LATENTS),
}
_MALA: dict[str, Any] = {"kind": "langevin", "kernel": "mala", "num_steps": 5, "step_size": 0.3, "precondition": True}
POSTERIORS: dict[str, dict[str, Any]] = {
    "variational": {"kind": "variational"},
    "ula_from_prior": {"kind": "langevin", "kernel": "ula", "num_steps": 20, "step_size": 0.02},
    "persistent_preconditioned_mala": _MALA | {"persistent": True, "adapt_steps": 10_000},
    "mala_from_encoder": _MALA | {"start": "encoder", "adapt_steps": 10_000},
    "tempered_from_encoder": _MALA
    | {"kind": "tempered", "start": "encoder", "num_temperatures": 3, "num_steps": 4, "steps_per_round": 2}
    | {"ladder": "adaptive", "adapt_steps": 10_000},
}
_CLUSTERED: dict[str, Any] = {
    "inner": 100, "base_activation": "identity", "base_scale": 0.7, "domain": (-4.0, 4.0), "grid_size": 10
}  # fmt: skip
PRIORS: dict[str, dict[str, Any]] = {
    "mixture": {},
    "clustered": {"kind": "clustered"},  # as many clusters as suit the data
    "clustered_20": {"kind": "clustered", "inner": 20},
    "clustered_40": {"kind": "clustered", "inner": 40},
    # N(0, I), which does not move: with the variational posterior a VAE
    "normal": {"inner": 1, "base_activation": "none", "coefficient_scale": 0.0, "grid_size": 1},
    "neural": {},  # its own settings
}
# The prior and posterior behind each name; `ddpm` is in ddpm.py.
MODELS: dict[str, tuple[str, str]] = {
    "clustered": ("clustered", "variational"),
    "clustered_20": ("clustered_20", "variational"),
    "clustered_40": ("clustered_40", "variational"),
    "mixture": ("mixture", "variational"),
    "vae": ("normal", "variational"),
    "neural": ("neural", "ula_from_prior"),
    **{name: ("mixture", name) for name in POSTERIORS if name != "variational"},
}
JUDGE = Laplace(num_modes=2, num_draws=1000, num_steps=10)


def configure(name: str, model: str, data_dir: str, num_steps: int, changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration of `model` for the data `name`; `changes`, by names such as "data.flip", replace its own."""
    prior, posterior = MODELS[model]
    setup = DATA[name]
    settings = image_settings(name, "paper_tiny", setup.channels, neural=prior == "neural")
    settings["data"] |= {"name": setup.source, "dir": data_dir}
    settings["likelihood"] |= {"sigma": setup.sigma}
    of_clusters = {**_CLUSTERED, **setup.clustered} if PRIORS[prior].get("kind") == "clustered" else {}
    settings["prior"] |= {"outer": setup.num_latents, **of_clusters, **PRIORS[prior]}
    if posterior == "variational":
        for group, rate in zip(("prior", "decoder"), setup.rates, strict=True):
            settings["optimizer"][group]["learning_rate"] = rate
    if prior == "normal":
        settings["optimizer"]["prior"]["learning_rate"] = 0.0
    settings["evaluation"] = default_dict()["evaluation"] | {"every_steps": 2}
    settings["posterior"] = default_dict()["posterior"] | POSTERIORS[posterior]
    if prior == "neural":
        settings["posterior"] |= {"negative_phase": "sampled"}
        settings["evaluation"] |= {"method": "ais", "reference": "prior"}
    if "encoder" in posterior or posterior == "variational":
        settings["encoder"] |= {"kind": "conv", "activation": "leaky_relu", "hidden": setup.channels[::-1]}
        settings["encoder"] |= setup.encoder
    settings["train"] |= {"num_steps": num_steps, "log_every": 1}
    for path, value in (changes or {}).items():
        *groups, field = path.split(".")
        functools.reduce(operator.getitem, groups, settings)[field] = value
    return Config.from_dict(settings)


class Training:
    """A run in progress, one update at a time.

    Attributes:
      model, sampler: static.
      state: after `num_updates` updates.
    """

    def __init__(self, config: Config, dataset: Dataset, seed: int):
        self.model, optimizer = build_model(config, dataset.data_shape), build_optimizer(config)
        self.sampler = build_sampler(config, build_prior(config), dataset.data_shape)
        self._data = jnp.asarray(dataset.train[np.arange(len(dataset.train))])
        self._order = {"size": len(self._data), "batch_size": config.data.batch_size, "seed": seed}
        self._step = build_train_step(config, self.model, optimizer, self.sampler)
        self.state = init_train_state(
            jax.random.key(seed), self.model, optimizer, self.sampler, len(self._data), averaged=is_averaged(config)
        )
        self.num_updates = 0

    def update(self) -> None:
        """One update with the next minibatch."""
        indices = jnp.asarray(batch_indices(self.num_updates, **self._order))[None]
        self.state, _ = self._step(self.state, Batch(self._data, indices, indices))
        self.num_updates += 1


def time_updates(training: Any, num: int) -> float:
    """Seconds of `num` updates of a `Training`, or of what has its `update` and `state`."""
    started = time.perf_counter()
    for _ in range(num):
        training.update()
    jax.block_until_ready(training.state)
    return time.perf_counter() - started


def train(config: Config, dataset: Dataset, seed: int) -> tuple[Model, TrainState, FrozenSampler, float]:
    """Model, state, sampler and the seconds that all steps but the first took."""
    training = Training(config, dataset, seed)
    time_updates(training, 1)
    seconds = time_updates(training, config.train.num_steps - 1)
    sampler = FrozenSampler.freeze(training.sampler, training.state.sampler, config.train.num_steps)
    return training.model, training.state, sampler, seconds
