"""Convolutional decoders and encoders of images.

On CPUs each convolution is one matrix product of patches, since XLA's convolutions are slow inside loops there
(docs/decisions/convolutions.md). The form is chosen when a program is lowered, and exports carry both.
"""

import dataclasses
import itertools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.kan.activations import Activation, activation_function
from kaem_jax.networks.base import Network, NnxDecoder, NnxEncoder, Output
from kaem_jax.settings import setting

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_MEAN, _DEVIATION = 0.5, 0.25  # of pixels in [0, 1], about


class Upsample(nnx.Module):
    """The transposed convolution with kernel size 4, stride 2 and SAME padding: [N, H, W, C] to [N, 2H, 2W, C'].

    The same map as flax's ConvTranspose, with a kernel [C, 4, 4, C']. On CPUs one matrix product turns every input
    pixel into a 4 x 4 patch of the output; patches overlap by half and are added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        # Each output pixel sums four taps, from four input pixels: this scale keeps the variance of the activations.
        scale = math.sqrt(1 / (4 * in_channels))
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (in_channels, 4, 4, out_channels), float))
        self.bias = nnx.Param(jnp.zeros((out_channels,), float))

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...].astype(x.dtype)
        image = jax.lax.platform_dependent(x, kernel, cpu=_upsample_by_patches, default=_upsample)
        return image + self.bias[...].astype(x.dtype)


def _upsample(x: Array, kernel: Array) -> Array:
    # XLA correlates with a kernel [4, 4, C, C']; our kernel is what a pixel adds to its surroundings, so flip it.
    flipped = kernel.transpose(1, 2, 0, 3)[::-1, ::-1]
    return jax.lax.conv_general_dilated(
        x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=_LAYOUT
    )


def _upsample_by_patches(x: Array, kernel: Array) -> Array:
    batch, height, width, channels = x.shape
    patches = x.reshape(batch * height * width, channels) @ kernel.reshape(channels, -1)
    return overlap_add(patches.reshape(batch, height, width, 4, 4, kernel.shape[-1]))


def overlap_add(patches: Array) -> Array:
    """Adds 4 x 4 patches [N, H, W, 4, 4, C] at every second pixel and cuts the border: [N, 2H, 2W, C].

    Rows first, then columns as contiguous pairs of pixels: the fastest of seven orders that were timed.
    """
    batch, height, width, _, _, channels = patches.shape
    # Rows 0 and 1 of a patch add to one pair of output rows, rows 2 and 3 to the next pair; likewise for columns.
    halves = patches.reshape(batch, height, width, 2, 2, 2, 2 * channels)
    rows = _add_shifted(halves[:, :, :, 0], halves[:, :, :, 1], axis=1)  # [N, H + 1, W, 2, 2, 2C]
    rows = rows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, width, 2, 2 * channels)[:, 1:-1]
    pairs = _add_shifted(rows[:, :, :, 0], rows[:, :, :, 1], axis=2)  # [N, 2H, W + 1, 2C]
    return pairs.reshape(batch, 2 * height, 2 * width + 2, channels)[:, :, 1:-1]


def _add_shifted(first: Array, second: Array, axis: int) -> Array:
    """The sum first_i + second_{i-1}, one entry longer than either."""
    zero = jnp.zeros_like(jax.lax.slice_in_dim(first, 0, 1, axis=axis))
    return jnp.concatenate([first, zero], axis) + jnp.concatenate([zero, second], axis)


class Downsample(nnx.Module):
    """The convolution with kernel size 4, stride 2 and SAME padding: [N, H, W, C] to [N, H / 2, W / 2, C'].

    The same map and initial values as of flax's Conv. On CPUs it is one product of 4 x 4 patches.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        initialise = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initialise(rngs.params(), (4, 4, in_channels, out_channels), float))
        rngs.params()  # flax draws the bias, too
        self.bias = nnx.Param(jnp.zeros((out_channels,), float))

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...].astype(x.dtype)
        image = jax.lax.platform_dependent(x, kernel, cpu=_downsample_by_patches, default=_downsample)
        return image + self.bias[...].astype(x.dtype)


def _downsample(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=_LAYOUT)


def _downsample_by_patches(x: Array, kernel: Array) -> Array:
    batch, height, width, channels = x.shape
    h, w = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 2 * h + 1 - height), (1, 2 * w + 1 - width), (0, 0)))
    pairs = x.reshape(batch, h + 1, 2, w + 1, 2 * channels)  # a patch is two pairs of rows, and of columns
    rows = jnp.concatenate([pairs[:, :-1], pairs[:, 1:]], axis=2)
    patches = jnp.concatenate([rows[..., :-1, :], rows[..., 1:, :]], axis=-1)  # [N, h, 4, w, 4 C]
    patches = patches.transpose(0, 1, 3, 2, 4).reshape(batch * h * w, 16 * channels)
    return _product(patches, kernel.reshape(16 * channels, -1)).reshape(batch, h, w, -1)


@jax.custom_vjp
def _product(patches: Array, kernel: Array) -> Array:
    """A matrix product whose kernel gradient uses a transposed copy of the patches: three times faster on CPUs."""
    return patches @ kernel


def _product_forward(patches: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return patches @ kernel, (patches, kernel)


def _product_backward(factors: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    patches, kernel = factors
    return slope @ kernel.T, jax.lax.optimization_barrier(patches.T) @ slope


_product.defvjp(_product_forward, _product_backward)


class UpConvolutions(nnx.Module):
    """The network of a `ConvDecoder`: a dense projection of [N, Q] to a small image, then one `Upsample` per layer.

    A non-linearity follows every hidden layer (docs/method.md, section 12, mistake 14).
    """

    def __init__(self, settings: "ConvDecoder", in_features: int, data_shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        channels, default = settings.hidden, jnp.result_type(float)
        self.activation = activation_function(settings.activation)
        self.dtype = jnp.dtype(settings.dtype)
        self.num_layers = len(channels)
        shrink = 2**self.num_layers  # each layer doubles the image
        self.start = (data_shape[0] // shrink, data_shape[1] // shrink, channels[0])
        self.project = nnx.Linear(in_features, math.prod(self.start), dtype=self.dtype, param_dtype=default, rngs=rngs)
        for i, (wide, narrow) in enumerate(itertools.pairwise((*channels, data_shape[2]))):
            setattr(self, f"up_{i}", Upsample(wide, narrow, rngs=rngs))

    def __call__(self, features: Array) -> Array:
        x = self.project(features.astype(self.dtype)).reshape(features.shape[0], *self.start)
        for i in range(self.num_layers):
            x = getattr(self, f"up_{i}")(self.activation(x))
        return x.astype(jnp.result_type(float))


class DownConvolutions(nnx.Module):
    """The network of a `ConvEncoder`: convolutions, then a dense layer, [N, H, W, C] to [N, out_features].

    The readout sums thousands of features that one update moves together. Unscaled, codes would jump by more than their
    posterior's scale (docs/decisions/encoders.md).
    """

    def __init__(self, settings: "ConvEncoder", data_shape: tuple[int, int, int], out_features: int, *, rngs: nnx.Rngs):
        self.activation = activation_function(settings.activation)
        self.standardize, self.readout_scale = settings.standardize, settings.readout_scale
        self.num_layers = len(settings.hidden)
        height, width, last = data_shape
        for i, (narrow, wide) in enumerate(itertools.pairwise((last, *settings.hidden))):
            setattr(self, f"down_{i}", Downsample(narrow, wide, rngs=rngs))
            height, width = -(-height // 2), -(-width // 2)
        size = math.prod((height, width, settings.hidden[-1]))
        self.project = nnx.Linear(size, out_features, param_dtype=jnp.result_type(float), rngs=rngs)
        self.project.kernel[...] = self.project.kernel[...] / settings.readout_scale

    def __call__(self, x: Array) -> Array:
        if self.standardize:
            x = (x - _MEAN) / _DEVIATION
        for i in range(self.num_layers):
            x = self.activation(getattr(self, f"down_{i}")(x))
        return self.readout_scale * self.project(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class ConvDecoder(Network):
    """A dense projection, then transposed convolutions that double the image, one per entry of `hidden`.

    Attributes:
      hidden: channels of the projection's image and of the hidden layers.
      activation: the non-linearity after every hidden layer.
      output: output activation: `identity`, `sigmoid`, or `tanh` (shifted and halved, to [0, 1]).
      dtype: dtype of the arithmetic; parameters keep the default float dtype. Most CPUs emulate bfloat16.

    Example:
      >>> decoder = kaem.ConvDecoder(hidden=(64, 32), output="sigmoid")  # 8 x 8 to 32 x 32
      >>> model = kaem.Model(prior, decoder, kaem.Gaussian(), data_shape=(32, 32, 3))
    """

    hidden: tuple[int, ...] = setting((128, 64, 32), low=1)
    activation: Activation = "leaky_relu"
    output: Output = "identity"
    dtype: Literal["bfloat16", "float32"] = "float32"

    def decoder(self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> NnxDecoder:
        shrink = 2 ** len(self.hidden)
        remedy = "; give grey images one channel, x[..., None]" if len(data_shape) == 2 else ""
        if not self.hidden or len(data_shape) != 3 or data_shape[0] % shrink or data_shape[1] % shrink:
            raise ValueError(
                f"hidden={self.hidden} doubles an image {len(self.hidden)} times and makes [height, width, channels] "
                f"with sides that are multiples of {shrink}; the data have shape {data_shape}{remedy}"
            )
        options = (("settings", self), ("in_features", num_features), ("data_shape", data_shape))
        return NnxDecoder(UpConvolutions, options, data_shape, self.output, num_features, is_large=True)


@dataclasses.dataclass(frozen=True)
class ConvEncoder(Network):
    """Convolutions that halve the image, one per entry of `hidden`, then a dense layer.

    Attributes:
      hidden: channels of the hidden layers.
      activation: the non-linearity after every hidden layer.
      standardize: map pixels from [0, 1] by 4 x - 2, to about mean 0 and standard deviation 1.
      readout_scale: factor by which updates of the dense layer are scaled; initial codes do not change.

    Example:
      >>> posterior = kaem.Variational(encoder=kaem.ConvEncoder(hidden=(32, 64)))
    """

    hidden: tuple[int, ...] = setting((32, 64, 128), low=1)
    activation: Activation = "leaky_relu"
    standardize: bool = False
    readout_scale: float = setting(1.0, above=0)

    def encoder(self, data_shape: tuple[int, ...], event_shape: tuple[int, ...], num_tokens: int) -> NnxEncoder:
        shrink = 2 ** len(self.hidden)
        if not self.hidden or len(data_shape) != 3 or data_shape[0] < shrink or data_shape[1] < shrink:
            raise ValueError(
                f"hidden={self.hidden} halves an image [height, width, channels] {len(self.hidden)} times, so its "
                f"sides must be at least {shrink}; the data have shape {data_shape}"
            )
        options = (("settings", self), ("data_shape", data_shape), ("out_features", 2 * math.prod(event_shape)))
        return NnxEncoder(DownConvolutions, options, data_shape, event_shape, is_large=True)
