"""Times of training steps, compared with their matrix products alone, flax's transposed convolutions, and a VAE.

    python benchmarks/train_step.py

The runs are `experiments/digits.py`, and the convolutional decoder 128-64-32 on 40 latents of 19 components. Each
`train_step` line has `compile_ms`, the time to compile the whole step ahead of time.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from baselines import decoder_products_ms, dense_products_ms, flax_decoder, vae_step
from measure import emit, experiment, measure

from kaem_jax.data import Batch, load_dataset
from kaem_jax.model import Model
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.runs.build import build_model, build_optimizer, build_sampler, build_train_step
from kaem_jax.settings import ImportanceConfig, LangevinConfig, PosteriorConfig, SequenceConfig, TemperedConfig
from kaem_jax.runs.experiment import Experiment
from kaem_jax.training.state import init_train_state

SHAPE = (32, 32, 3)
STEPS, SIGMA = 20, 0.3  # of experiments/svhn.py:paper_tiny


def time_step(model: Model, config: Config, data: jax.Array, repeats: int) -> dict[str, float]:
    """Times the step as training runs it: compiled ahead of time, donated state, data on the device."""
    optimizer, sampler = build_optimizer(config), build_sampler(config, model.prior, model.data_shape)
    state = init_train_state(jax.random.key(0), model, optimizer, sampler, len(data))
    rng = np.random.default_rng(0)

    def batch() -> Batch:
        rows = jax.device_put(rng.integers(0, len(data), (1, config.data.batch_size)).astype(np.int32))
        return Batch(data, rows, rows)

    started = time.perf_counter()
    step = build_train_step(config, model, optimizer, sampler).lower(state, batch()).compile()
    compile_ms = 1e3 * (time.perf_counter() - started)
    times = []
    for _ in range(repeats + 3):
        rows = batch()
        started = time.perf_counter()
        state, metrics = step(state, rows)
        jax.block_until_ready(metrics)
        times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.quantile(times[3:], [0.1, 0.5, 0.9])
    return {"median_ms": median, "p10_ms": low, "p90_ms": high, "compile_ms": compile_ms, "first_step_ms": times[0]}


def image_config(batch_size: int, posterior: PosteriorConfig) -> Config:
    """The configuration of experiments/svhn.py:paper_tiny, the reference size, with these two settings replaced."""
    config = experiment("svhn", "paper_tiny")
    data = dataclasses.replace(config.data, batch_size=batch_size)
    return dataclasses.replace(config, data=data, posterior=posterior)


def widths_of(config: Config) -> tuple[int, ...]:
    """Hidden widths, or channels, of the decoder."""
    assert not isinstance(config.decoder, SequenceConfig)
    return config.decoder.hidden


def digits() -> None:
    """Times the step of the default experiment."""
    config = experiment("digits")
    assert isinstance(config.posterior, ImportanceConfig)
    dataset = load_dataset(config.data)
    batch_size, num_samples = config.data.batch_size, config.posterior.num_samples
    size = {"experiment": "digits", "batch_size": batch_size, "num_samples": num_samples}
    model = build_model(config, dataset.data_shape)
    emit("train_step", size, time_step(model, config, jax.device_put(dataset.train), 50))
    widths = (config.prior.outer, *widths_of(config), 64)
    emit("matrix_products", size, {"median_ms": dense_products_ms(widths, num_samples, batch_size)})


def langevin() -> None:
    """Times 20 ULA steps per datum, with our transposed convolutions and with flax's, and the matrix products alone."""
    data = jax.device_put(np.random.default_rng(0).integers(0, 256, (1000, *SHAPE), dtype=np.uint8))
    for batch_size in (32, 128):
        config = image_config(batch_size, LangevinConfig(num_steps=STEPS, step_size=0.02))
        size = {"experiment": "svhn", "batch_size": batch_size, "langevin_steps": STEPS}
        model = build_model(config, SHAPE)
        emit("train_step", size, time_step(model, config, data, 20))
        products = decoder_products_ms(batch_size, config.prior.outer, widths_of(config), SHAPE, langevin_steps=STEPS)
        emit("matrix_products", size, {"median_ms": products})
        if batch_size == 32:
            assert isinstance(model.decoder, NnxDecoder)
            flax_model = dataclasses.replace(model, decoder=flax_decoder(model.decoder))
            emit("train_step_conv_transpose", size, time_step(flax_model, config, data, 5))


def tempered() -> None:
    """Times the same number of steps on T rungs, which exchange every 5 steps; T = 1 is plain Langevin."""
    data = jax.device_put(np.random.default_rng(0).integers(0, 256, (1000, *SHAPE), dtype=np.uint8))
    for num_temperatures in (1, 2, 5):
        posterior = TemperedConfig(num_steps=STEPS, step_size=0.02, num_temperatures=num_temperatures)
        config = image_config(32, posterior)
        size = {"experiment": "svhn", "batch_size": 32, "langevin_steps": STEPS, "num_temperatures": num_temperatures}
        emit("train_step_tempered", size, time_step(build_model(config, SHAPE), config, data, 10))
        options = {"langevin_steps": STEPS, "num_rungs": num_temperatures}
        products = decoder_products_ms(32, config.prior.outer, widths_of(config), SHAPE, **options)
        emit("matrix_products", size, {"median_ms": products})


def importance() -> None:
    """Times as many shared proposals as data, compared with a VAE of the same decoder and a mirrored encoder."""
    data = jax.device_put(np.random.default_rng(0).integers(0, 256, (1000, *SHAPE), dtype=np.uint8))
    for batch_size in (32, 128):
        config = image_config(batch_size, ImportanceConfig(num_samples=batch_size))
        size = {"experiment": "svhn", "batch_size": batch_size, "num_samples": batch_size}
        model = build_model(config, SHAPE)
        emit("train_step_importance", size, time_step(model, config, data, 20))
        init, step = vae_step(model.decoder, widths_of(config), config.prior.outer, SIGMA)
        x = data[:batch_size].astype(jnp.float32) / 255
        emit("vae_step", size, measure(step, jax.random.key(1), init(jax.random.key(0)), x))
        # Above: the fastest VAE we can write, with our transposed convolutions. Below: one as people usually write it.
        assert isinstance(model.decoder, NnxDecoder)
        init, step = vae_step(flax_decoder(model.decoder), widths_of(config), config.prior.outer, SIGMA)
        emit("vae_step_conv_transpose", size, measure(step, jax.random.key(1), init(jax.random.key(0)), x))


if __name__ == "__main__":
    digits()
    langevin()
    tempered()
    importance()
