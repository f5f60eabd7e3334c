"""A Kolmogorov-Arnold network: layers of univariate function banks summed over their inputs."""

import dataclasses
import math
from typing import Any

import jax
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.networks.base import OUTPUTS, Decoder, Network, Output
from kaem_jax.settings import setting
from kaem_jax.settings.registry import BASES

# E[silu(x)^2] under N(0, 1): base weights of variance 1 / (0.356 fan_in) keep unit variance from layer to layer.
_SILU_SECOND_MOMENT = 0.356


@dataclasses.dataclass(frozen=True)
class KanDecoder(Decoder):
    """A KAN with layers of the `widths`: y_j = sum_i f_{i,j}(x_i), f = silu base plus a basis expansion."""

    settings: "KAN"
    widths: tuple[int, ...]
    data_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        hash(tuple(self.layers))  # made here, so that what a bank refuses is refused with the decoder

    @property
    def in_features(self) -> int:  # type: ignore[override]
        return self.widths[0]

    @property
    def output(self) -> str:  # type: ignore[override]
        return self.settings.output

    @property
    def layers(self) -> list[FunctionBank]:
        return [
            FunctionBank(
                outer=fan_in,
                inner=fan_out,
                basis=self.settings.basis,
                base_activation="silu",
                num_intervals=self.settings.grid_size,
                domain=self.settings.domain,
                shared=True,
                coefficient_scale=0.1 / math.sqrt(fan_in),
                base_scale=1 / math.sqrt(_SILU_SECOND_MOMENT * fan_in),
            )
            for fan_in, fan_out in zip(self.widths[:-1], self.widths[1:], strict=True)
        ]

    def init(self, key: Array) -> dict[str, Any]:
        keys = jax.random.split(key, len(self.widths) - 1)
        return {f"bank_{i}": bank.init(k) for i, (bank, k) in enumerate(zip(self.layers, keys, strict=True))}

    def apply(self, params: dict[str, Any], features: Array, *data: Array) -> Array:
        x = features
        for i, bank in enumerate(self.layers):
            x = bank.contract(params[f"bank_{i}"], x)
        return OUTPUTS[self.settings.output](x.reshape(*features.shape[:-1], *self.data_shape))


@dataclasses.dataclass(frozen=True)
class KAN(Network):
    """A Kolmogorov-Arnold network: layers of univariate functions summed over their inputs.

    Attributes:
      hidden: widths of the hidden layers.
      output: output activation: `identity`, `sigmoid`, or `tanh` (shifted and halved, to [0, 1]).
      basis: family of the basis functions.
      grid_size: grid intervals of every function.
      domain: (low, high), the grid of every function. Outside it B-splines are constant, so that only the base
        activation changes; other bases keep their formulas.

    Example:
      >>> model = kaem.Model(prior, kaem.KAN(hidden=(16,), grid_size=8), kaem.Gaussian(), data_shape=(8, 8))
    """

    hidden: tuple[int, ...] = setting((128, 128), low=1)
    output: Output = "identity"
    basis: Basis = setting(BSpline(), kinds=BASES)
    grid_size: int = setting(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)

    def decoder(self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> KanDecoder:
        widths = (num_features, *self.hidden, math.prod(output_shape))
        return KanDecoder(self, widths, data_shape)
