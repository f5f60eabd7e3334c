"""A Kolmogorov-Arnold network: layers of univariate function banks summed over their inputs."""

import dataclasses
import math
from typing import Any

import jax
from jax import Array

from kaem_jax.generator.generator import OUTPUTS
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis

__all__ = ["KanGenerator"]

# E[silu(x)^2] under N(0, 1): base weights of variance 1 / (0.356 fan_in) keep unit variance from layer to layer.
_SILU_SECOND_MOMENT = 0.356


@dataclasses.dataclass(frozen=True)
class KanGenerator:
    """y_j = sum_i f_{i,j}(x_i) in every layer, f = silu base plus a basis expansion on `domain`.

    Attributes:
      widths: layer widths from Q to prod(data_shape).
      basis: basis family of all layers.
      num_intervals: grid intervals of every function.
      domain: grid of every function. Beyond it only the base activation goes on changing.
      data_shape: shape of one datum.
      output: a key of `OUTPUTS`.
    """

    widths: tuple[int, ...]
    basis: Basis
    num_intervals: int
    domain: tuple[float, float]
    data_shape: tuple[int, ...]
    output: str = "identity"

    @property
    def layers(self) -> list[FunctionBank]:
        return [
            FunctionBank(
                outer=fan_in,
                inner=fan_out,
                basis=self.basis,
                base_activation="silu",
                num_intervals=self.num_intervals,
                domain=self.domain,
                shared_grid=True,
                coefficient_scale=0.1 / math.sqrt(fan_in),
                base_scale=1 / math.sqrt(_SILU_SECOND_MOMENT * fan_in),
            )
            for fan_in, fan_out in zip(self.widths[:-1], self.widths[1:], strict=True)
        ]

    def init(self, key: Array) -> dict[str, Any]:
        keys = jax.random.split(key, len(self.widths) - 1)
        return {f"bank_{i}": bank.init(k) for i, (bank, k) in enumerate(zip(self.layers, keys, strict=True))}

    def apply(self, params: dict[str, Any], features: Array) -> Array:
        x = features
        for i, bank in enumerate(self.layers):
            x = bank.contract(params[f"bank_{i}"], x)
        return OUTPUTS[self.output](x.reshape(*features.shape[:-1], *self.data_shape))
