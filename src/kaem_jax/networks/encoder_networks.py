"""Networks of encoders."""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.kan.activations import activation_function
from kaem_jax.likelihoods import Categorical
from kaem_jax.networks.attention import Block
from kaem_jax.networks.mlp import MLP

__all__ = ["ConvEncoder", "MlpEncoder", "SequenceEncoder"]

_MEAN, _DEVIATION = 0.5, 0.25  # of pixels in [0, 1], about


class MlpEncoder(nnx.Module):
    """Dense layers on flattened data: [N, *data_shape] to [N, out_features]."""

    def __init__(
        self, in_features: int, hidden: tuple[int, ...], out_features: int, activation: str, *, rngs: nnx.Rngs
    ):
        self.layers = MLP((in_features, *hidden, out_features), activation, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.layers(x.reshape(len(x), -1))


class ConvEncoder(nnx.Module):
    """Convolutions of kernel size 4 and stride 2, then a dense layer: [N, H, W, C] to [N, out_features].

    Attributes:
      data_shape: (height, width, C) of the input.
      channels: channels of each hidden layer.
      standardize: pixels in [0, 1] are first moved to mean 0 and scaled to standard deviation 1, about.
      readout_scale: the output of the dense layer is multiplied by it, and its initial kernel divided by it. Codes
        start the same, and one update of Adam moves them by `readout_scale` times as much. The layer sums over
        thousands of features, which an update moves together, so that codes would jump by more than their posterior's
        scale (BUILD_NOTES.md, "Encoders that learn steadily").
    """

    def __init__(
        self,
        data_shape: tuple[int, int, int],
        channels: tuple[int, ...],
        out_features: int,
        activation: str,
        standardize: bool,
        readout_scale: float,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.result_type(float)
        self.activation = activation_function(activation)
        self.standardize, self.readout_scale = standardize, readout_scale
        self.num_layers = len(channels)
        height, width, last = data_shape
        for i, (narrow, wide) in enumerate(itertools.pairwise((last, *channels))):
            setattr(self, f"down_{i}", nnx.Conv(narrow, wide, (4, 4), 2, param_dtype=dtype, rngs=rngs))
            height, width = -(-height // 2), -(-width // 2)
        self.project = nnx.Linear(math.prod((height, width, channels[-1])), out_features, param_dtype=dtype, rngs=rngs)
        self.project.kernel[...] = self.project.kernel[...] / readout_scale

    def __call__(self, x: Array) -> Array:
        if self.standardize:
            x = (x - _MEAN) / _DEVIATION
        for i in range(self.num_layers):
            x = self.activation(getattr(self, f"down_{i}")(x))
        return self.readout_scale * self.project(x.reshape(len(x), -1))


class SequenceEncoder(nnx.Module):
    """Blocks of self-attention over tokens, their mean over the sequence, a dense layer: [N, T] to [N, out_features].

    Attributes:
      length: T.
      vocabulary: how many tokens there are.
    """

    takes_tokens = True

    def __init__(
        self,
        length: int,
        vocabulary: int,
        width: int,
        num_blocks: int,
        num_heads: int,
        out_features: int,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.result_type(float)
        self.num_blocks = num_blocks
        self.read_token = nnx.Embed(vocabulary, width, param_dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(length, width, param_dtype=dtype, rngs=rngs)
        for i in range(num_blocks):
            setattr(self, f"block_{i}", Block(width, num_heads, rngs=rngs))
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(width, out_features, param_dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        tokens = tokens.astype(jnp.int32)
        is_read = Categorical.is_read(tokens)
        x = self.read_token(tokens) + self.positions(jnp.arange(tokens.shape[-1]))
        for i in range(self.num_blocks):
            x = getattr(self, f"block_{i}")(x, is_read[:, None, None])
        is_read = is_read.astype(x.dtype)
        weights = is_read / jnp.sum(is_read, axis=-1, keepdims=True)
        return self.project(jnp.sum(jax.nn.gelu(self.norm(x)) * weights[..., None], axis=1))
