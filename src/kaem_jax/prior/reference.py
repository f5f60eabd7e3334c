"""Reference densities pi0 of the univariate priors: analytic log-density, tail masses and quantiles (method section 3).

Every function acts elementwise and computes in the dtype of its argument. All log-densities are in nats.
"""

import dataclasses
import math
from typing import Protocol

import jax.numpy as jnp
from jax import Array
from jax.scipy import special

__all__ = ["REFERENCES", "Gaussian", "Reference", "Uniform", "make_reference"]


class Reference(Protocol):
    """An analytic univariate density. Static and hashable."""

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the support; infinite where it has none."""
        ...

    @property
    def has_tails(self) -> bool:
        """Whether there is mass outside the domain; False where the support is the domain itself."""
        ...

    def log_prob(self, z: Array) -> Array:
        """Log pi0(z), -inf outside the support."""
        ...

    def log_cdf(self, z: Array) -> Array:
        """Log of the mass below z."""
        ...

    def log_survival(self, z: Array) -> Array:
        """Log of the mass above z."""
        ...

    def quantile(self, p: Array) -> Array:
        """Z with mass p below it; the ends of the support at p = 0 and p = 1."""
        ...

    def upper_quantile(self, p: Array) -> Array:
        """Z with mass p above it, as exact for small p as `quantile` is."""
        ...


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """The standard normal N(0, 1)."""

    @property
    def support(self) -> tuple[float, float]:
        return (-math.inf, math.inf)

    @property
    def has_tails(self) -> bool:
        return True

    def log_prob(self, z: Array) -> Array:
        return -0.5 * (z * z + math.log(2 * math.pi))

    def log_cdf(self, z: Array) -> Array:
        return special.log_ndtr(z)

    def log_survival(self, z: Array) -> Array:
        return special.log_ndtr(-z)

    def quantile(self, p: Array) -> Array:
        return special.ndtri(p)

    def upper_quantile(self, p: Array) -> Array:
        return -special.ndtri(p)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The uniform density on [low, high]; `flat` is the paper's name for the same density."""

    low: float
    high: float

    @property
    def support(self) -> tuple[float, float]:
        return (self.low, self.high)

    @property
    def has_tails(self) -> bool:
        return False

    def log_prob(self, z: Array) -> Array:
        inside = (z >= self.low) & (z <= self.high)
        return jnp.where(inside, jnp.asarray(-math.log(self.high - self.low), z.dtype), -jnp.inf)

    def log_cdf(self, z: Array) -> Array:
        return jnp.log(jnp.clip((z - self.low) / (self.high - self.low), 0, 1))

    def log_survival(self, z: Array) -> Array:
        return jnp.log(jnp.clip((self.high - z) / (self.high - self.low), 0, 1))

    def quantile(self, p: Array) -> Array:
        return self.low + (self.high - self.low) * p

    def upper_quantile(self, p: Array) -> Array:
        return self.high - (self.high - self.low) * p


REFERENCES = ("flat", "gaussian", "uniform")


def make_reference(name: str, domain: tuple[float, float]) -> Reference:
    """Builds the reference density `name`; a bounded one has the domain as its support.

    Raises:
      ValueError: `name` is not one of `REFERENCES`.
    """
    if name == "gaussian":
        return Gaussian()
    if name in ("uniform", "flat"):
        return Uniform(*domain)
    raise ValueError(f"reference={name!r} is not known; allowed: {', '.join(REFERENCES)}")
