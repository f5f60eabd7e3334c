"""A multilayer perceptron."""

import itertools

import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.kan.activations import activation_function

__all__ = ["MLP"]


class MLP(nnx.Module):
    """Dense layers with a non-linearity after every hidden one: [N, widths[0]] to [N, widths[-1]]."""

    def __init__(self, widths: tuple[int, ...], activation: str, *, rngs: nnx.Rngs):
        self.activation = activation_function(activation)
        self.num_layers = len(widths) - 1
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            layer = nnx.Linear(fan_in, fan_out, param_dtype=jnp.result_type(float), rngs=rngs)
            setattr(self, f"dense_{i}", layer)

    def __call__(self, x: Array) -> Array:
        for i in range(self.num_layers):
            x = getattr(self, f"dense_{i}")(x)
            if i < self.num_layers - 1:
                x = self.activation(x)
        return x
