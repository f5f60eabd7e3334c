"""Multilayer perceptrons, as decoders and as encoders."""

import dataclasses
import itertools
import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.kan.activations import Activation, activation_function
from kaem_jax.networks.base import Network, NnxDecoder, NnxEncoder, Output
from kaem_jax.settings import setting


class DenseLayers(nnx.Module):
    """Dense layers with a non-linearity after every hidden one: [N, ...], flattened, to [N, widths[-1]]."""

    def __init__(self, widths: tuple[int, ...], activation: Activation, *, rngs: nnx.Rngs):
        self.activation = activation_function(activation)
        self.num_layers = len(widths) - 1
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            layer = nnx.Linear(fan_in, fan_out, param_dtype=jnp.result_type(float), rngs=rngs)
            setattr(self, f"dense_{i}", layer)

    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for i in range(self.num_layers):
            x = getattr(self, f"dense_{i}")(x)
            if i < self.num_layers - 1:
                x = self.activation(x)
        return x


@dataclasses.dataclass(frozen=True)
class MLP(Network):
    """A multilayer perceptron, for data of any shape.

    Attributes:
      hidden: widths of the hidden layers.
      activation: the non-linearity after every hidden layer.
      output: output activation of a decoder: `identity`, `sigmoid`, or `tanh` (shifted and halved, to [0, 1]).

    Example:
      >>> model = kaem.Model(prior, kaem.MLP(hidden=(64, 64), output="sigmoid"), kaem.Gaussian(), data_shape=(8, 8))
    """

    hidden: tuple[int, ...] = setting((128, 128), low=1)
    activation: Activation = "silu"
    output: Output = "identity"

    def decoder(self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> NnxDecoder:
        widths = (num_features, *self.hidden, math.prod(output_shape))
        return NnxDecoder(DenseLayers, self._options(widths), data_shape, self.output, num_features)

    def encoder(self, data_shape: tuple[int, ...], event_shape: tuple[int, ...], num_tokens: int) -> NnxEncoder:
        if self.output != "identity":
            raise ValueError(f"output={self.output!r} is of decoders: an encoder's output must be 'identity'")
        widths = (math.prod(data_shape), *self.hidden, 2 * math.prod(event_shape))
        return NnxEncoder(DenseLayers, self._options(widths), data_shape, event_shape)

    def _options(self, widths: tuple[int, ...]) -> tuple[tuple[str, object], ...]:
        return (("activation", self.activation), ("widths", widths))
