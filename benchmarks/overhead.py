"""What an update costs beside a bare variational autoencoder, in calls of 20, and as sizes grow; JSON lines.

    python benchmarks/overhead.py --data_dir DIR [--experiments mnist:tiny svhn:tiny] [--rounds 15] [--growth]

The bare one has the networks, the batch and the Adam of the experiment and nothing else: 30 lines of jitted code. It is
compared with the same model with N(0, I) through this package, the experiment with its clusters, and that in calls of
20 updates. All take turns. `--growth` gives the exponent of the time of an update in each size.
"""

import math
from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lib.measure import Training, emit, experiment, script, time_updates
from lib.models import MODELS

from kaem_jax.app.data import Dataset, load_dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.training.batch import batch_indices

UPDATES_A_TURN = 20
SIZES: dict[str, tuple[str, str, tuple[int, int]]] = {
    "batch": ("svhn:tiny", "data.batch_size", (32, 128)),
    "latents": ("svhn:tiny", "prior.num_latents", (40, 160)),
    "clusters": ("svhn:tiny", "prior.num_clusters", (25, 100)),
    "draws": ("svhn:tiny", "posterior.num_draws", (1, 4)),
    "langevin steps": ("svhn:paper_tiny", "posterior.num_steps", (5, 20)),
    "temperatures": ("svhn_tempered:paper_tiny", "posterior.num_temperatures", (2, 8)),
}


class Bare:
    """A variational autoencoder with the networks of an experiment, updated by Adam."""

    def __init__(self, config: Experiment, dataset: Dataset):
        model, settings = config.model(dataset.data_shape), config.posterior
        encoder, decoder = model.bind_encoder(settings.encoder), model.network  # type: ignore[attr-defined]
        sigma = model.likelihood.sigma  # type: ignore[attr-defined]
        optimizer = optax.adam(1e-3)
        data = jnp.asarray(dataset.train[np.arange(len(dataset.train))]).reshape(len(dataset.train), -1)
        self._order = {"size": len(data), "batch_size": config.data.batch_size, "seed": 0}

        def loss(params: Any, key: Array, x: Array) -> Array:
            mean, log_scale = encoder.apply(params["encoder"], x)
            z = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
            error = jnp.sum(jnp.square(x - decoder.apply(params["decoder"], z))) / sigma**2
            divergence = jnp.sum(jnp.square(mean) + jnp.exp(2 * log_scale) - 1 - 2 * log_scale)
            return 0.5 * (error + divergence) / len(x)

        def update(state: Any, indices: Array) -> Any:
            params, optimiser_state, step = state
            x = data[indices].reshape(-1, *dataset.data_shape).astype(float) / 255
            gradient = jax.grad(loss)(params, jax.random.fold_in(jax.random.key(0), step), x)
            updates, optimiser_state = optimizer.update(gradient, optimiser_state, params)
            return optax.apply_updates(params, updates), optimiser_state, step + 1

        self._update = jax.jit(update, donate_argnums=0)
        key_encoder, key_decoder = jax.random.split(jax.random.key(0))
        params = {"encoder": encoder.init(key_encoder), "decoder": decoder.init(key_decoder)}
        self.state = params, optimizer.init(params), jnp.zeros((), int)
        self.num_updates = 0

    def update(self) -> None:
        """One update with the next minibatch."""
        self.state = self._update(self.state, jnp.asarray(batch_indices(self.num_updates, **self._order)))
        self.num_updates += 1


def turns(trainings: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of an update of each, by round; the first call compiles and does not count."""
    for training in trainings.values():
        time_updates(training, 2)
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(rounds):
        for name, training in trainings.items():
            before = training.num_updates
            seconds = time_updates(training, UPDATES_A_TURN // getattr(training, "per_call", 1))
            times[name].append(1e3 * seconds / (training.num_updates - before))
    return times


@script(__doc__, data_dir=str, experiments=["mnist:tiny", "svhn:tiny"], rounds=15, growth=False)
def main(given: Namespace) -> None:
    """Prints one line for each experiment and model, or for each size."""

    def run(name: str, *settings: str, per_call: int = 1) -> Training:
        config = experiment(name, [f"data.dir={given.data_dir}", *settings])
        return Training(config, load_dataset(config.data), per_call=per_call)

    if given.growth:
        for size, (name, setting, values) in SIZES.items():
            found = turns({str(value): run(name, f"{setting}={value}") for value in values}, given.rounds)
            low, high = (float(np.median(found[str(value)])) for value in values)
            exponent = math.log(high / low) / math.log(values[1] / values[0])
            emit("growth", {"size": size, "values": values}, {"ms": [low, high], "exponent": exponent})
        return
    for name in given.experiments:
        config = experiment(name, [f"data.dir={given.data_dir}"])
        trainings: dict[str, Any] = {
            "bare": Bare(config, load_dataset(config.data)),
            "normal": run(name, *MODELS["vae"]),
        }
        trainings |= {"clustered": run(name), "clustered, 20 a call": run(name, per_call=20)}
        found = turns(trainings, given.rounds)
        for model, times in found.items():
            ratio = float(np.median(np.array(times) / np.array(found["bare"])))
            emit("overhead", {"experiment": name, "model": model}, {"ms": float(np.median(times)), "ratio": ratio})
