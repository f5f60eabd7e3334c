"""A decoder of transposed convolutions, each computed by one matrix product and an overlap-add of its patches."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.kan.activations import activation_function

__all__ = ["ConvDecoder", "Upsample", "first_shape", "num_groups"]


def first_shape(data_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int, int]:
    """The shape [h, w, C] that the features are projected to, for data [H, W, C'] after a doubling by each layer."""
    shrink = 2 ** len(channels)
    return data_shape[0] // shrink, data_shape[1] // shrink, channels[0]


def num_groups(width: int) -> int:
    """Groups of channels that are normalised together."""
    return math.gcd(width, 32)


class Upsample(nnx.Module):
    """The transposed convolution with kernel size 4, stride 2 and SAME padding: [N, H, W, C] to [N, 2H, 2W, C'].

    Every input pixel makes a 4 x 4 patch of the output, by one matrix product for all; patches overlap by half and are
    added. It is the same map as flax's ConvTranspose, which XLA lowers to a dilated convolution: on CPU that is several
    times slower inside a loop (BUILD_NOTES.md, "Images: transposed convolutions"). The kernel is [C, 4, 4, C'].
    """

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        # Each output pixel sums four taps, from four input pixels: this scale keeps the variance of the activations.
        scale = math.sqrt(1 / (4 * in_channels))
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (in_channels, 4, 4, out_channels), float))
        self.bias = nnx.Param(jnp.zeros((out_channels,), float))

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        kernel = self.kernel[...].astype(x.dtype)
        patches = x.reshape(batch * height * width, channels) @ kernel.reshape(channels, -1)
        image = overlap_add(patches.reshape(batch, height, width, 4, 4, kernel.shape[-1]))
        return image + self.bias[...].astype(x.dtype)


def overlap_add(patches: Array) -> Array:
    """Adds 4 x 4 patches [N, H, W, 4, 4, C] at every second pixel and cuts the border: [N, 2H, 2W, C].

    It adds rows first, then columns as contiguous pairs of pixels: the fastest of seven orders that were timed.
    """
    batch, height, width, _, _, channels = patches.shape
    # Rows 0, 1 of a patch fall on the pair of output rows in which it starts, rows 2, 3 on the next; so do columns.
    halves = patches.reshape(batch, height, width, 2, 2, 2, 2 * channels)
    rows = _add_shifted(halves[:, :, :, 0], halves[:, :, :, 1], axis=1)  # [N, H + 1, W, 2, 2, 2C]
    rows = rows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, width, 2, 2 * channels)[:, 1:-1]
    pairs = _add_shifted(rows[:, :, :, 0], rows[:, :, :, 1], axis=2)  # [N, 2H, W + 1, 2C]
    return pairs.reshape(batch, 2 * height, 2 * width + 2, channels)[:, :, 1:-1]


def _add_shifted(first: Array, second: Array, axis: int) -> Array:
    """first_i + second_{i-1}, one entry longer than either."""
    zero = jnp.zeros_like(jax.lax.slice_in_dim(first, 0, 1, axis=axis))
    return jnp.concatenate([first, zero], axis) + jnp.concatenate([zero, second], axis)


class ConvDecoder(nnx.Module):
    """A dense projection of [N, Q] to a small image, then one `Upsample` for each entry of `channels`.

    A non-linearity follows every hidden layer, whatever else is switched off (docs/method.md, section 12, mistake 14).

    Attributes:
      channels: channels of the projection's image and of each hidden layer.
      data_shape: (height, width, C) of the output; both sides are multiples of 2^len(channels).
      group_norm: normalise in at most 32 groups of channels before each non-linearity.
      concatenate_latent: append the features to the channels that enter each upsampling.
      dtype: type of the arithmetic, with `jax_enable_x64` too; parameters and output keep the default float.
    """

    def __init__(
        self,
        in_features: int,
        data_shape: tuple[int, int, int],
        channels: tuple[int, ...],
        activation: str,
        group_norm: bool,
        concatenate_latent: bool,
        dtype: str,
        *,
        rngs: nnx.Rngs,
    ):
        self.activation = activation_function(activation)
        self.dtype = jnp.dtype(dtype)
        self.concatenate_latent = concatenate_latent
        self.num_layers = len(channels)
        self.start = first_shape(data_shape, channels)
        self.project = nnx.Linear(
            in_features, math.prod(self.start), dtype=self.dtype, param_dtype=jnp.result_type(float), rngs=rngs
        )
        extra = in_features if concatenate_latent else 0
        for i, (wide, narrow) in enumerate(itertools.pairwise((*channels, data_shape[2]))):
            setattr(self, f"up_{i}", Upsample(wide + extra, narrow, rngs=rngs))
            if group_norm:
                groups, default = num_groups(wide), jnp.result_type(float)
                norm = nnx.GroupNorm(wide, num_groups=groups, dtype=self.dtype, param_dtype=default, rngs=rngs)
                setattr(self, f"norm_{i}", norm)

    def __call__(self, features: Array) -> Array:
        features = features.astype(self.dtype)
        x = self.project(features).reshape(features.shape[0], *self.start)
        for i in range(self.num_layers):
            if hasattr(self, f"norm_{i}"):
                x = getattr(self, f"norm_{i}")(x)
            x = self.activation(x)
            if self.concatenate_latent:
                everywhere = jnp.broadcast_to(features[:, None, None, :], (*x.shape[:3], features.shape[-1]))
                x = jnp.concatenate([x, everywhere], axis=-1)
            x = getattr(self, f"up_{i}")(x)
        return x.astype(jnp.result_type(float))
