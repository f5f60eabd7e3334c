"""Baselines for a training step: a decoder with flax's ConvTranspose, a VAE, and the matrix products alone."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from measure import measure

from kaem_jax.networks import Decoder
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.networks.conv import ConvDecoder


class FlaxDecoder(ConvDecoder):
    """The same network with flax's own transposed convolutions."""

    def __init__(self, *args: Any, rngs: nnx.Rngs, **options: Any):
        super().__init__(*args, rngs=rngs, **options)
        for i in range(self.num_layers):
            wide, _, _, narrow = getattr(self, f"up_{i}").kernel.shape
            setattr(self, f"up_{i}", nnx.ConvTranspose(wide, narrow, (4, 4), (2, 2), padding="SAME", rngs=rngs))


class Encoder(nnx.Module):
    """The mirror image of the decoder: strided convolutions that return means and log-variances of the latents."""

    def __init__(self, data_shape: tuple[int, int, int], channels: tuple[int, ...], latents: int, *, rngs: nnx.Rngs):
        widths = (data_shape[2], *reversed(channels))
        self.num_layers = len(channels)
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths)):
            setattr(self, f"down_{i}", nnx.Conv(narrow, wide, (4, 4), (2, 2), padding="SAME", rngs=rngs))
        shrink = 2 ** len(channels)
        self.head = nnx.Linear(data_shape[0] * data_shape[1] // shrink**2 * channels[0], 2 * latents, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for i in range(self.num_layers):
            x = jax.nn.leaky_relu(getattr(self, f"down_{i}")(x))
        return self.head(x.reshape(len(x), -1))


def flax_decoder(decoder: NnxDecoder) -> NnxDecoder:
    """`decoder` with flax's transposed convolutions instead of ours."""
    return NnxDecoder(FlaxDecoder, decoder.options, decoder.data_shape, decoder.output)


def vae_step(
    decoder: Decoder, channels: tuple[int, ...], latents: int, sigma: float
) -> tuple[Callable[[Array], Any], Callable[..., Any]]:
    """(init(key) -> state, step(key, state, x) -> (state, loss)) of a Gaussian VAE trained by Adam."""
    height, width, colours = decoder.data_shape
    encoder = functools.partial(Encoder, (height, width, colours), channels, latents)
    optimizer = optax.adam(1e-3)
    definition, _ = nnx.split(nnx.eval_shape(lambda: encoder(rngs=nnx.Rngs(0))), nnx.Param)

    def init(key: Array) -> Any:
        key_encoder, key_decoder = jax.random.split(key)
        weights = nnx.to_pure_dict(nnx.state(encoder(rngs=nnx.Rngs(key_encoder)), nnx.Param))
        params = {"encoder": weights, "decoder": decoder.init(key_decoder)}
        return params, optimizer.init(params)

    def step(key: Array, state: Any, x: Array) -> Any:
        def loss(params: Any) -> Array:
            mean, log_variance = jnp.split(nnx.merge(definition, params["encoder"])(x), 2, axis=-1)
            noise = jax.random.normal(key, mean.shape)
            z = mean + jnp.exp(0.5 * log_variance) * noise
            divergence = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1)
            error = jnp.sum(jnp.square(x - decoder.apply(params["decoder"], z)), axis=(1, 2, 3))
            return jnp.mean(error / (2 * sigma**2) + divergence)

        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return init, step


def decoder_products_ms(
    batch: int,
    latents: int,
    channels: tuple[int, ...],
    data_shape: tuple[int, int, int],
    langevin_steps: int,
    num_rungs: int = 1,
) -> float:
    """Milliseconds of the step's matrix products, each timed alone.

    Every Langevin step, on all rungs, and the loss, on the last one, need the decoder's forward pass and the gradient
    with respect to its input. The loss also needs the gradients of the kernels.
    """
    of_moves = _decoder_passes(batch * num_rungs, latents, channels, data_shape)[0]
    passes, to_kernels = _decoder_passes(batch, latents, channels, data_shape)
    return langevin_steps * of_moves + passes + to_kernels


def _decoder_passes(
    batch: int, latents: int, channels: tuple[int, ...], data_shape: tuple[int, int, int]
) -> tuple[float, float]:
    """Milliseconds of a pass with the gradient to its input, and of the gradients of the kernels."""
    shrink = 2 ** len(channels)
    pixels = data_shape[0] * data_shape[1] // shrink**2
    sizes = [(batch, latents, pixels * channels[0])]
    for wide, narrow in itertools.pairwise((*channels, data_shape[2])):
        sizes.append((batch * pixels, wide, 16 * narrow))
        pixels *= 4
    passes = to_kernels = 0.0
    for rows, fan_in, fan_out in sizes:
        x, kernel, y = jnp.ones((rows, fan_in)), jnp.ones((fan_in, fan_out)), jnp.ones((rows, fan_out))
        forward = measure(lambda x, kernel: x @ kernel, x, kernel)["median_ms"]
        to_input = measure(lambda y, kernel: jnp.einsum("ro,io->ri", y, kernel), y, kernel)["median_ms"]
        to_kernel = measure(lambda x, y: jnp.einsum("ri,ro->io", x, y), x, y)["median_ms"]
        passes += forward + to_input
        to_kernels += to_kernel
    return passes, to_kernels


def dense_products_ms(widths: tuple[int, ...], num_samples: int, batch_size: int) -> float:
    """Milliseconds of a dense decoder's matrix products for `num_samples` proposals.

    The products of its outputs with `batch_size` data are included.
    """

    def products(layers, x):
        total = jnp.zeros(())
        for inputs, weights, outputs in layers:
            total += jnp.sum(inputs @ weights) + jnp.sum(inputs.T @ outputs) + jnp.sum(outputs @ weights.T)
        output = layers[-1][2]
        return total + jnp.sum(x @ output.T) + jnp.sum((x @ output.T).T @ x)

    layers = [
        (jnp.ones((num_samples, fan_in)), jnp.ones((fan_in, fan_out)), jnp.ones((num_samples, fan_out)))
        for fan_in, fan_out in itertools.pairwise(widths)
    ]
    return measure(products, layers, jnp.ones((batch_size, math.prod(widths[-1:]))))["median_ms"]
