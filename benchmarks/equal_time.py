"""What different posteriors and priors learn in equal time: the same generator, one judge for all.

python benchmarks/equal_time.py --data_dir DIR [--experiments mnist svhn] [--seconds 100] [--seeds 0 1 2]
python benchmarks/equal_time.py --data_dir DIR --posteriors variational --priors normal mixture clustered_20

Each run of `:tiny` trains for so many seconds of steps (compilation apart). Its learning rates fall along a cosine to
the number of steps that fit, which is measured first. The judge: held-out nats by annealing from Laplace
approximations, the Frechet distance of samples in features of one classifier, and the error of reconstructions.
"""

import argparse
import functools
import itertools
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import emit

from kaem_jax.build import build_model, build_optimizer, build_prior, build_sampler, build_train_step
from kaem_jax.config import Config, default_dict, image_settings
from kaem_jax.data import Batch, Dataset, batch_indices, load_dataset, to_unit_interval
from kaem_jax.evaluators import HeldOutLikelihood, Reconstruction, SampleComparison, prepare_features
from kaem_jax.evidence import make_estimator
from kaem_jax.model import Model
from kaem_jax.posterior import FrozenSampler, ReferencedSampler
from kaem_jax.reference import LaplaceReference
from kaem_jax.run import Run
from kaem_jax.train_state import TrainState, init_train_state

DATA = {"mnist": ("mnist", (64, 32)), "svhn": ("svhn_cropped", (128, 64, 32))}
MALA: dict[str, Any] = {"kind": "langevin", "kernel": "mala", "num_steps": 5, "step_size": 0.3, "precondition": True}
POSTERIORS: dict[str, dict[str, Any]] = {
    "ula_from_prior": {"kind": "langevin", "kernel": "ula", "num_steps": 20, "step_size": 0.02},
    "persistent_preconditioned_mala": MALA | {"persistent": True, "adapt_steps": 10_000},
    "variational": {"kind": "variational"},
    "mala_from_encoder": MALA | {"start": "encoder", "adapt_steps": 10_000},
    "tempered_from_encoder": MALA
    | {"kind": "tempered", "start": "encoder", "num_temperatures": 3, "num_steps": 4, "steps_per_round": 2}
    | {"ladder": "adaptive", "adapt_steps": 10_000},
}
CLUSTERED: dict[str, Any] = {
    "kind": "clustered", "base_activation": "identity", "base_scale": 0.7, "domain": (-4.0, 4.0), "grid_size": 10
}  # fmt: skip
PRIORS: dict[str, dict[str, Any]] = {
    "mixture": {},
    "clustered_20": CLUSTERED | {"inner": 20},
    "clustered_40": CLUSTERED | {"inner": 40},
    # N(0, I), which does not move: with the variational posterior a VAE
    "normal": {"inner": 1, "base_activation": "none", "coefficient_scale": 0.0, "grid_size": 1},
}
PROBE_STEPS = 60
JUDGE = LaplaceReference(num_modes=2, num_draws=1000, num_steps=10)


def configure(name: str, posterior: str, prior: str, data_dir: str, num_steps: int) -> Config:
    """The configuration of a run."""
    source, channels = DATA[name]
    settings = image_settings(name, "paper_tiny", channels)
    settings["data"] |= {"name": source, "dir": data_dir}
    settings["prior"] |= PRIORS[prior]
    if prior == "normal":
        settings["optimizer"]["prior"] |= {"learning_rate": 1e-30, "warmup_steps": 0}
    settings["evaluation"] = default_dict()["evaluation"] | {"every_steps": 2}
    settings["posterior"] = default_dict()["posterior"] | POSTERIORS[posterior]
    if posterior in ("variational", "mala_from_encoder", "tempered_from_encoder"):
        settings["encoder"] |= {"kind": "conv", "activation": "leaky_relu", "hidden": channels[::-1]}
    settings["train"] |= {"num_steps": num_steps, "log_every": 1}
    return Config.from_dict(settings)


def train(config: Config, dataset: Dataset, seed: int) -> tuple[Model, TrainState, FrozenSampler, float]:
    """Model, state, sampler and the seconds that all steps but the first took."""
    model, optimizer = build_model(config, dataset.data_shape), build_optimizer(config)
    sampler = build_sampler(config, build_prior(config), dataset.data_shape)
    data = jnp.asarray(dataset.train[np.arange(len(dataset.train))])
    state = init_train_state(jax.random.key(seed), model, optimizer, sampler, len(data))
    step = build_train_step(config, model, optimizer, sampler)
    order = {"size": len(data), "batch_size": config.data.batch_size, "seed": seed}
    started = 0.0
    for i in range(config.train.num_steps):
        indices = jnp.asarray(batch_indices(i, **order))[None]
        state, metrics = step(state, Batch(data, indices, indices))
        if i == 0:
            jax.block_until_ready(metrics)
            started = time.perf_counter()
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
    return model, state, FrozenSampler.freeze(sampler, state.sampler, config.train.num_steps), seconds


def main() -> None:
    """Prints one JSON line for each experiment, posterior and seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--experiments", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--posteriors", nargs="+", default=list(POSTERIORS), choices=list(POSTERIORS))
    parser.add_argument("--priors", nargs="+", default=["mixture"], choices=list(PRIORS))
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    for name in given.experiments:
        configured = functools.partial(configure, name, data_dir=given.data_dir)
        config = configured(given.posteriors[0], "mixture", num_steps=PROBE_STEPS)
        dataset = load_dataset(config.data)
        with tempfile.TemporaryDirectory() as folder:
            classifier = pathlib.Path(folder) / "classifier.npz"
            extractor = prepare_features(config, dataset, ("fid",), "classifier", classifier)
        comparison = SampleComparison(dataset, ("fid",), extractor, 2000)
        x = to_unit_interval(jnp.asarray(dataset.test[:100]))
        estimator = make_estimator("ais", reference=JUDGE, num_chains=32, num_temperatures=64, batch_size=100)
        judges = (HeldOutLikelihood(jax.random.key(7), x, estimator), Reconstruction(jax.random.key(8), x), comparison)
        for posterior, prior in itertools.product(given.posteriors, given.priors):
            *_, seconds = train(configured(posterior, prior, num_steps=PROBE_STEPS), dataset, 0)
            num_steps = int(given.seconds * (PROBE_STEPS - 1) / seconds)
            for seed in given.seeds:
                config = configured(posterior, prior, num_steps=num_steps)
                model, state, sampler, seconds = train(config, dataset, seed)
                judge = FrozenSampler(ReferencedSampler(reference=JUDGE), (), num_steps)
                run = Run(config, model, state.params, num_steps, sampler, judge)
                found = {metric: numbers for judge in judges for metric, numbers in judge.run(run).items()}
                result = {
                    "seconds": seconds,
                    "nats": found["log_likelihood"]["nats"],
                    "ess": found["log_likelihood"]["ess"],
                    "frechet_distance": found["fid"]["value"],
                    "reconstruction_error": 1000 * found["reconstruction"]["mean_squared_error"],
                }
                size = {"experiment": f"{name}:tiny", "posterior": posterior, "prior": prior, "seed": seed}
                emit("equal_time", size | {"num_steps": num_steps, "reconstruction_error_in": "thousandths"}, result)


if __name__ == "__main__":
    main()
