"""Networks of encoders."""

import itertools
import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.generator.mlp import MLP
from kaem_jax.kan.activations import activation_function

__all__ = ["ConvEncoder", "MlpEncoder"]


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
    """

    def __init__(
        self,
        data_shape: tuple[int, int, int],
        channels: tuple[int, ...],
        out_features: int,
        activation: str,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.result_type(float)
        self.activation = activation_function(activation)
        self.num_layers = len(channels)
        height, width, last = data_shape
        for i, (narrow, wide) in enumerate(itertools.pairwise((last, *channels))):
            setattr(self, f"down_{i}", nnx.Conv(narrow, wide, (4, 4), 2, param_dtype=dtype, rngs=rngs))
            height, width = -(-height // 2), -(-width // 2)
        self.project = nnx.Linear(math.prod((height, width, channels[-1])), out_features, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for i in range(self.num_layers):
            x = self.activation(getattr(self, f"down_{i}")(x))
        return self.project(x.reshape(len(x), -1))
