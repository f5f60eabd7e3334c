"""Base densities pi0: analytic log-density, tail masses and quantiles (docs/method.md, section 3).

All functions act elementwise, in the dtype of their argument. Log-densities are in nats.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

Params = dict[str, Array]

_MIN_DEVIATION = 1e-2
_NARROWEST = 0.15  # of an interval: log Z is right to 2e-5 there (`pytest tests/priors/test_exactness.py -k narrower`)
# Widest intervals, in deviations of z or log z, on which sixteen nodes resolve the base: log Z is right to 1e-7 in
# float64 (`pytest tests/priors/test_exactness.py -k widest` has float32).
_WIDEST, _WIDEST_LOG = 10.0, 2.5
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class BaseDensity:
    """An analytic univariate density: the standard normal, transformed by a monotone map. Static and hashable.

    A subclass defines the map from z to the standard normal with the log of its slope (`_standardise`), and the inverse
    (`_locate`).
    """

    @property
    def has_tails(self) -> bool:
        """Whether there is mass outside the domain."""
        return True

    @property
    def support(self) -> tuple[float, float] | None:
        """(low, high) where the density is positive; None for the whole line."""
        return None

    def init(self, shape: tuple[int, ...]) -> Params:
        """Initial parameters, one entry per density; empty if nothing is learned."""
        return {}

    def log_prob(self, params: Params, z: Array) -> Array:
        """Log pi0(z), -inf outside the support."""
        standard, log_slope = self._standardise(params, z)
        return -0.5 * standard * standard - _HALF_LOG_2PI + log_slope

    def log_cdf(self, params: Params, z: Array) -> Array:
        """Log of the mass below z."""
        return special.log_ndtr(self._standardise(params, z)[0])

    def log_survival(self, params: Params, z: Array) -> Array:
        """Log of the mass above z."""
        return special.log_ndtr(-self._standardise(params, z)[0])

    def quantile(self, params: Params, p: Array) -> Array:
        """The z with mass p below it; the ends of the support at p = 0 and 1."""
        return self._locate(params, special.ndtri(p))

    def upper_quantile(self, params: Params, p: Array) -> Array:
        """The z with mass p above it, as accurate for small p as `quantile`."""
        return self._locate(params, -special.ndtri(p))

    def _standardise(self, params: Params, z: Array) -> tuple[Array, Array]:
        """The standard normal coordinate of z, and the log of its derivative."""
        return z, jnp.zeros_like(z)

    def _locate(self, params: Params, standard: Array) -> Array:
        return standard


@dataclasses.dataclass(frozen=True)
class StandardNormal(BaseDensity):
    """The standard normal N(0, 1)."""


@dataclasses.dataclass(frozen=True)
class LearnableGaussian(BaseDensity):
    """N(mu, s^2) with learned mu and s = softplus(raw_deviation) + 0.01; starts at N(0, 1).

    Attributes:
      min_deviation: smallest s; a narrower peak would fall between quadrature nodes.
    """

    min_deviation: float = _MIN_DEVIATION

    def init(self, shape: tuple[int, ...]) -> Params:
        raw = math.log(math.expm1(1.0 - _MIN_DEVIATION))
        return {"mean": jnp.zeros(shape, float), "raw_deviation": jnp.full(shape, raw, float)}

    def _standardise(self, params: Params, z: Array) -> tuple[Array, Array]:
        deviation = self.deviation(params)
        return (z - params["mean"]) / deviation, -jnp.log(deviation)

    def _locate(self, params: Params, standard: Array) -> Array:
        return params["mean"] + self.deviation(params) * standard

    def deviation(self, params: Params) -> Array:
        deviation = _MIN_DEVIATION + jax.nn.softplus(params["raw_deviation"])
        # A straight-through gradient, so that a deviation at its limit can grow again.
        return deviation + jax.lax.stop_gradient(jnp.maximum(self.min_deviation - deviation, 0))


@dataclasses.dataclass(frozen=True)
class Lognormal(BaseDensity):
    """exp(N(0, 1)) on (0, inf)."""

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, math.inf)

    def log_prob(self, params: Params, z: Array) -> Array:
        return jnp.where(z > 0, super().log_prob(params, z), -jnp.inf)

    def _standardise(self, params: Params, z: Array) -> tuple[Array, Array]:
        log_z = jnp.log(jnp.maximum(z, jnp.finfo(z.dtype).tiny))
        return log_z, -log_z

    def _locate(self, params: Params, standard: Array) -> Array:
        return jnp.exp(standard)


@dataclasses.dataclass(frozen=True)
class Uniform(BaseDensity):
    """The uniform density on [low, high], the paper's `flat`. It has no tails, so only `log_prob` is used."""

    low: float
    high: float

    @property
    def has_tails(self) -> bool:
        return False

    @property
    def support(self) -> tuple[float, float]:
        return (self.low, self.high)

    def log_prob(self, params: Params, z: Array) -> Array:
        inside = (z >= self.low) & (z <= self.high)
        return jnp.where(inside, jnp.asarray(-math.log(self.high - self.low), z.dtype), -jnp.inf)


BaseDensityName = Literal["flat", "gaussian", "learnable_gaussian", "lognormal", "uniform"]


def make_base_density(name: BaseDensityName, domain: tuple[float, float], num_intervals: int) -> BaseDensity:
    """The base density `name`; a bounded one has the domain as its support.

    Raises:
      ValueError: the domain is outside the support, or its `num_intervals` grid intervals are so wide that log Z would
        be wrong.
    """
    if name == "lognormal" and domain[0] <= 0:
        raise ValueError(f"domain={domain} must lie above 0 for base_density='lognormal', for instance (0.05, 8.0)")
    is_log = name == "lognormal"
    length, widest = (math.log(domain[1] / domain[0]), _WIDEST_LOG) if is_log else (domain[1] - domain[0], _WIDEST)
    if name not in ("flat", "uniform") and length > widest * num_intervals:
        raise ValueError(
            f"grid_size={num_intervals} is too small for domain={domain} with base_density={name!r}: log Z would be "
            f"wrong; it must be at least {math.ceil(length / widest)}"
        )
    match name:
        case "gaussian":
            return StandardNormal()
        case "learnable_gaussian":
            return LearnableGaussian(max(_MIN_DEVIATION, _NARROWEST * length / num_intervals))
        case "lognormal":
            return Lognormal()
    return Uniform(*domain)
