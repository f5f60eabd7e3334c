"""A Kolmogorov-Arnold network: layers of univariate function banks summed over their inputs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.kan.grid import adapted_grid, fit_points, refit, sample_levels, weighted_quantiles
from kaem_jax.networks.base import OUTPUTS, Network, Output
from kaem_jax.settings import setting
from kaem_jax.settings.registry import BASES

__all__ = ["KAN", "KanDecoder"]

# E[silu(x)^2] under N(0, 1): base weights of variance 1 / (0.356 fan_in) keep unit variance from layer to layer.
_SILU_SECOND_MOMENT = 0.356


@dataclasses.dataclass(frozen=True)
class KanDecoder:
    """y_j = sum_i f_{i,j}(x_i) in every layer, f = silu base plus a basis expansion on `domain`.

    Attributes:
      widths: layer widths from Q to prod(data_shape).
      basis: basis family of all layers.
      num_intervals: grid intervals of every function.
      domain: grid of every function. Outside it B-splines are constant, so that only the base activation changes; other
        bases go on as they are.
      data_shape: shape of one datum.
      output: a key of `OUTPUTS`.
    """

    widths: tuple[int, ...]
    basis: Basis
    num_intervals: int
    domain: tuple[float, float]
    data_shape: tuple[int, ...]
    output: str = "identity"

    def __post_init__(self) -> None:
        assert self.layers  # made here, so that what a bank refuses is refused with the decoder

    @property
    def in_features(self) -> int:
        return self.widths[0]

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
        x = self.layer_inputs(params, features)[-1]
        return OUTPUTS[self.output](x.reshape(*features.shape[:-1], *self.data_shape))

    def layer_inputs(self, params: dict[str, Any], features: Array) -> list[Array]:
        """The inputs of each layer, [..., width] each, then the last layer's output."""
        inputs = [features]
        for i, bank in enumerate(self.layers):
            inputs.append(bank.contract(params[f"bank_{i}"], inputs[-1]))
        return inputs

    def update_grids(
        self,
        params: dict[str, Any],
        features: Array,
        uniform_fraction: float,
        weights: Array | None = None,
        reach: Array | None = None,
        *,
        max_change: float = 1.0,
    ) -> tuple[dict[str, Any], Array]:
        """Moves every layer's breakpoints to its inputs for `features` [N, Q] and refits its functions.

        A layer keeps its grid if the fit is not finite, or changes its outputs too much.

        Args:
          features: [N, Q].
          uniform_fraction: share of even spacing in the new grids; see `adapted_grid`.
          weights: [N] of the features, which add up to 1; None for equal ones.
          reach: [M, Q] features that the grids reach too, wherever breakpoints are dense: draws of the prior, which
            lie further apart than the posterior draws of a minibatch and are decoded with the same functions.
          max_change: root mean square of the change of a layer's outputs, in standard deviations of these, above which
            it keeps its grid.

        Returns:
          the parameters, and the changes [number of layers], also of those that were refused.
        """
        updated, changes = {}, []
        everything = features if reach is None else jnp.concatenate([features, reach])
        for i, (bank, inputs) in enumerate(zip(self.layers, self.layer_inputs(params, everything), strict=False)):
            x = inputs[: len(features)]
            old = params[f"bank_{i}"]
            levels = jnp.asarray(sample_levels(bank.num_intervals), x.dtype)
            quantiles = weighted_quantiles(x, weights, levels).T[:, None]
            low, high = (end(inputs, axis=0)[:, None] for end in (jnp.min, jnp.max))
            even = jnp.linspace(low, high, bank.num_intervals + 1, axis=-1)
            grid = adapted_grid(quantiles, even, uniform_fraction)
            target = jnp.moveaxis(bank.evaluate(old, jnp.moveaxis(fit_points(grid), -1, 0)), 0, -1)
            new = refit(bank, old, grid, target)
            before, after = (bank.contract(fitted, inputs) for fitted in (old, new))
            moved, spread = jnp.square(after - before), jnp.var(before, axis=0)
            change = jnp.sqrt(jnp.mean(moved) / jnp.mean(spread))
            finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]))
            changes.append(jnp.where(finite, change, jnp.nan))
            taken = changes[-1] <= max_change  # False for NaN
            updated[f"bank_{i}"] = jax.tree.map(lambda a, b, taken=taken: jnp.where(taken, a, b), new, old)
        return updated, jnp.stack(changes)


@dataclasses.dataclass(frozen=True)
class KAN(Network):
    """A Kolmogorov-Arnold network: layers of univariate functions summed over their inputs; see `KanDecoder`.

    Attributes:
      hidden: widths of the hidden layers.
      output: the last function: `identity`, `sigmoid`, or `tanh` (shifted and halved, to [0, 1]).
      basis: family of the basis functions.
      grid_size: grid intervals of every function.
      domain: (low, high), the initial grid of every function.
    """

    hidden: tuple[int, ...] = setting((128, 128), low=1)
    output: Output = "identity"
    basis: Basis = setting(BSpline(), kinds=BASES)
    grid_size: int = setting(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)

    def decoder(self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> KanDecoder:
        widths = (num_features, *self.hidden, math.prod(output_shape))
        return KanDecoder(widths, self.basis, self.grid_size, self.domain, data_shape, self.output)
