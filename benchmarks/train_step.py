"""Times of training steps beside their matrix products alone and flax's transposed convolutions; JSON lines.

    python benchmarks/train_step.py [--cases digits langevin tempered] [--repeats 20]

The runs are `digits`, and `svhn:paper_tiny`: a convolutional decoder 128-64-32 on 40 latents of 19 components.
"""

import dataclasses
import itertools
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from lib.measure import Training, emit, experiment, in_milliseconds, measure, script, time_updates

import kaem_jax as kaem
from kaem_jax.app.data import Dataset, load_dataset
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.model import Model
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.networks.conv import UpConvolutions

SHAPE, STEPS = (32, 32, 3), 20


class FlaxUpConvolutions(UpConvolutions):
    """The same network with flax's own transposed convolutions."""

    def __init__(self, *args: Any, rngs: nnx.Rngs, **options: Any):
        super().__init__(*args, rngs=rngs, **options)
        for i in range(self.num_layers):
            wide, _, _, narrow = getattr(self, f"up_{i}").kernel.shape
            setattr(self, f"up_{i}", nnx.ConvTranspose(wide, narrow, (4, 4), (2, 2), padding="SAME", rngs=rngs))


def products(sizes: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """Milliseconds of layers [rows, in] @ [in, out]: forward and the gradient to the input; the gradient of kernels."""
    passes = to_kernels = 0.0
    for rows, fan_in, fan_out in sizes:
        x, kernel, y = jnp.ones((rows, fan_in)), jnp.ones((fan_in, fan_out)), jnp.ones((rows, fan_out))
        passes += measure(lambda x, kernel: x @ kernel, x, kernel)["median_ms"]
        passes += measure(lambda y, kernel: y @ kernel.T, y, kernel)["median_ms"]
        to_kernels += measure(lambda x, y: x.T @ y, x, y)["median_ms"]
    return passes, to_kernels


def conv_sizes(rows: int, config: Experiment) -> list[tuple[int, int, int]]:
    """The products of the decoder for `rows` latents."""
    decoder, prior = config.decoder, config.prior
    assert isinstance(decoder, kaem.ConvDecoder)
    pixels = SHAPE[0] * SHAPE[1] // 4 ** len(decoder.hidden)
    sizes = [(rows, prior.num_features, pixels * decoder.hidden[0])]
    for i, (wide, narrow) in enumerate(itertools.pairwise((*decoder.hidden, SHAPE[2]))):
        sizes.append((rows * pixels * 4**i, wide, 16 * narrow))
    return sizes


def time_step(config: Experiment, data: Dataset, repeats: int, model: Model | None = None) -> dict[str, float]:
    """Times the step as training runs it: donated state, data on the device; the first one includes compilation."""
    training = Training(config, data, model=model)
    times = [time_updates(training, 1) for _ in range(repeats + 3)]
    return in_milliseconds(times[3:]) | {"first_step_ms": 1e3 * times[0]}


def digits(repeats: int) -> None:
    """The step of the default experiment; proposals are shared by the minibatch."""
    config = experiment("digits")
    sampler, decoder = config.posterior, config.decoder
    assert isinstance(sampler, kaem.Importance)
    assert isinstance(decoder, kaem.MLP)
    size = {"experiment": "digits", "batch_size": config.data.batch_size, "num_samples": sampler.num_samples}
    emit("train_step", size, time_step(config, load_dataset(config.data), repeats))
    widths = (config.prior.num_features, *decoder.hidden, 64)
    layers = [(sampler.num_samples, fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(widths)]
    distances, _ = products([(config.data.batch_size, 64, sampler.num_samples)])
    emit("matrix_products", size, {"median_ms": distances + sum(products(layers))})


def images(case: str, repeats: int) -> None:
    """Steps of images: 20 ULA steps for each datum, or the same on T rungs."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, *SHAPE), dtype=np.uint8)
    data = Dataset(pixels, pixels)
    for batch_size, num_rungs in {"tempered": ((32, 1), (32, 2), (32, 5))}.get(case, ((32, 1), (128, 1))):
        settings = [f"data.batch_size={batch_size}"]
        if case == "tempered":
            settings += ["posterior.kind=tempered", f"posterior.num_temperatures={num_rungs}"]
        config = experiment("svhn:paper_tiny", settings)
        model = config.model(SHAPE)
        size = {"case": case, "batch_size": batch_size, "num_rungs": num_rungs}
        emit("train_step", size, time_step(config, data, repeats))
        # Each Langevin step, on all rungs, takes a pass and its gradient; the loss, on the last rung, all gradients.
        moves, loss = products(conv_sizes(batch_size * num_rungs, config)), products(conv_sizes(batch_size, config))
        emit("matrix_products", size, {"median_ms": STEPS * moves[0] + sum(loss)})
        if case == "langevin" and batch_size == 32:
            assert isinstance(model.network, NnxDecoder)
            network = dataclasses.replace(model.network, module=FlaxUpConvolutions)
            flax = dataclasses.replace(model, decoder=network)
            emit("train_step_conv_transpose", size, time_step(config, data, max(1, repeats // 4), flax))


@script(__doc__, cases=["digits", "langevin", "tempered"], repeats=20)
def main(given: Namespace) -> None:
    """Prints the lines of each case."""
    for case in given.cases:
        if case == "digits":
            digits(given.repeats)
        else:
            images(case, given.repeats)
