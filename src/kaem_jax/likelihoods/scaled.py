"""Likelihoods with a scale: Gaussian and discretised logistic."""

import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.transforms import sum_of_rows
from kaem_jax.likelihoods.base import Likelihood, Params, check_in_unit_interval
from kaem_jax.likelihoods.intervals import log_normal_mass, truncated_normal
from kaem_jax.settings import Settings, setting

_NUM_FOR_CENTRE, _NUM_CHECKED = 15, 100
_UNSCALED = 100  # deviations of data in units of a fixed sigma beyond which a word is due


@dataclasses.dataclass(frozen=True)
class _Scaled(Settings, Likelihood):
    """A likelihood with a scale in the units of the data.

    Attributes:
      sigma: the scale; its initial value if it is learned.
      learn_sigma: whether the scale is learned, as exp of the parameter `log_sigma` [] or [num_channels].
      num_channels: number of scales, one for each channel (the last axis of the data); 1: one scale for all values.
    """

    sigma: float = setting(0.3, above=0)
    learn_sigma: bool = False
    num_channels: int = setting(1, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_channels > 1 and not self.learn_sigma:
            raise ValueError(f"num_channels={self.num_channels} needs scales that are learned: set learn_sigma=True")

    def init(self, key: Array) -> Params:
        shape = () if self.num_channels == 1 else (self.num_channels,)
        return {"log_sigma": jnp.full(shape, math.log(self.sigma), float)} if self.learn_sigma else {}

    def check_output(self, shape: tuple[int, ...]) -> None:
        if self.num_channels > 1 and shape[-1:] != (self.num_channels,):
            raise ValueError(
                f"num_channels={self.num_channels} is the length of the last axis of data, and the decoder makes an "
                f"output of shape {shape}"
            )

    def _scales(self, params: Params, size: int, dtype: Any) -> tuple[Array, Array]:
        """The scale of each of the `size` values, [] or [size], and the mean of its logarithm."""
        log_sigma = jnp.asarray(params["log_sigma"] if self.learn_sigma else math.log(self.sigma), dtype)
        mean = jnp.mean(log_sigma)
        return jnp.exp(jnp.tile(log_sigma, size // self.num_channels) if log_sigma.ndim else log_sigma), mean


@dataclasses.dataclass(frozen=True)
class Gaussian(_Scaled):
    """N(x; output, sigma^2).

    Example:
      >>> model = kaem.Model(prior, kaem.MLP(), kaem.Gaussian(sigma=0.1, learn_sigma=True), data_shape=(4,))
    """

    has_intervals = True

    def check_data(self, x: np.ndarray) -> None:
        deviation = float(np.nanstd(x))
        if not self.learn_sigma and deviation > _UNSCALED * self.sigma:
            warnings.warn(
                f"x has a standard deviation of {deviation:.3g}, {deviation / self.sigma:.0f} times the likelihood's "
                f"sigma={self.sigma}: scale x (pixels to 0..1), or set learn_sigma=True",
                stacklevel=4,
            )

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        scale, _ = self._scales(params, x.shape[-1], output.dtype)
        return -0.5 * jnp.square((x - output) / scale) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        scale, mean = self._scales(params, x.shape[-1], output.dtype)
        return self._from_distance(sum_of_rows(jnp.square((x - output) / scale)), mean, x.shape[-1])

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        # |x - y|^2 by one matrix product. Centring keeps the norms small, so cancellation loses few digits; TF32 or
        # bfloat16 would cause errors of whole nats. The centre is a median of the first data, so that outliers and NaN
        # do not spoil the other pairs.
        scale, mean = self._scales(params, x.shape[-1], output.dtype)
        some = jax.lax.stop_gradient(x[:_NUM_FOR_CENTRE])
        centre = jnp.nan_to_num(jnp.nanmedian(jnp.where(jnp.isfinite(some), some, jnp.nan), axis=0))
        x, output = (x - centre) / scale, (output - centre) / scale
        product = jnp.matmul(x, output.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.sum(x * x, axis=-1)[:, None] - 2 * product + jnp.sum(output * output, axis=-1)
        return self._from_distance(distance, mean, x.shape[-1])

    def mean(self, params: Params, output: Array) -> Array:
        return output

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        scale, _ = self._scales(params, output.shape[-1], output.dtype)
        return output + scale * jax.random.normal(key, output.shape, output.dtype)

    def log_mass(self, params: Params, output: Array, low: Array, high: Array) -> Array:
        scale, _ = self._scales(params, output.shape[-1], output.dtype)
        return log_normal_mass(output, scale, low, high)

    def sample_within(self, key: Array, params: Params, output: Array, low: Array, high: Array) -> Array:
        scale, _ = self._scales(params, output.shape[-1], output.dtype)
        return truncated_normal(key, output, scale, low, high)

    def dispersion(self, params: Params, output: Array) -> Array:
        return jnp.square(self._scales(params, output.shape[-1], output.dtype)[0])

    @staticmethod
    def _from_distance(squared_distance: Array, mean_log_scale: Array, size: int) -> Array:
        return -0.5 * squared_distance - size * (mean_log_scale + 0.5 * math.log(2 * math.pi))


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic(_Scaled):
    """A logistic distribution with location `output` and scale sigma, discretised to the values k / (levels - 1).

    A value has the probability of its cell, which reaches half-way to its neighbours; the first and last cells hold the
    tails (Salimans et al., 2017, PixelCNN++, equation 2). -log_prob / (D log 2) is bits per dimension.

    Attributes:
      levels: number of values, 256 for 8-bit pixels divided by 255. Data must take these values only.

    Example:
      >>> model = kaem.Model(prior, kaem.MLP(output="sigmoid"), kaem.DiscretizedLogistic(), data_shape=(8, 8))
    """

    levels: int = setting(256, low=2, high=65536)

    def check_data(self, x: np.ndarray) -> None:
        check_in_unit_interval(x, "a discretised likelihood")
        steps = x[:_NUM_CHECKED].astype(np.float64) * (self.levels - 1)
        rounding = (self.levels - 1) * 2.0**-24  # of values in float32
        if np.abs(steps - np.round(steps)).max(initial=0) > 1e-3 + rounding:
            raise ValueError(
                f"levels={self.levels} needs data that are multiples of 1 / {self.levels - 1}, and these are not: give "
                "their number of levels, or take a Gaussian likelihood"
            )

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        scale, _ = self._scales(params, x.shape[-1], output.dtype)
        half = 0.5 / (self.levels - 1)
        above, below = (x - output + half) / scale, (x - output - half) / scale
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): nothing cancels, however far x is.
        log_rest = jnp.log(-jnp.expm1(-2 * half / scale))
        first, last = x < half, x > 1 - half
        by_value = jnp.where(last, 0, jax.nn.log_sigmoid(above)) + jnp.where(first, 0, jax.nn.log_sigmoid(-below))
        return by_value + jnp.where(first | last, 0, log_rest)

    def mean(self, params: Params, output: Array) -> Array:
        """The mean of the distribution clipped to [0, 1], without the rounding to levels."""
        scale, _ = self._scales(params, output.shape[-1], output.dtype)
        return scale * (jax.nn.softplus(output / scale) - jax.nn.softplus((output - 1) / scale))

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        scale, _ = self._scales(params, output.shape[-1], output.dtype)
        x = output + scale * jax.random.logistic(key, output.shape, output.dtype)
        return jnp.round(jnp.clip(x, 0, 1) * (self.levels - 1)) / (self.levels - 1)
