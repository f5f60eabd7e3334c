"""A prior at its parameters, with its tables built once."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
from jax import Array

from kaem_jax.settings.arguments import Shape

if TYPE_CHECKING:
    from kaem_jax.priors.base import Prior

__all__ = ["BoundPrior"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params", "table"], meta_fields=["prior"])
@dataclasses.dataclass(frozen=True)
class BoundPrior:
    """A prior at its parameters: a pytree, whose methods are pure and need nothing else.

        p = prior.bind(params["prior"])
        z = p.sample(key, (1000,))
        p.log_prob(z), p.cdf(z), p.quantile(u)

    Attributes:
      prior: static.
      params: its parameters.
      table: `prior.tabulate(params)`.
    """

    prior: "Prior"
    params: dict[str, Any]
    table: Any

    def sample(self, key: Array, shape: Shape = (), points: str = "random") -> Array:
        """Draws [*shape, *event_shape]; see `Prior.sample`."""
        return self.prior.sample(key, self.table, shape, points)

    def log_prob(self, z: Array) -> Array:
        """Log p(z), [..., *event_shape] to [...] nats."""
        return self.prior.log_prob(self.params, z, self.table)

    def cdf(self, z: Array) -> Array:
        """CDF of each coordinate, [..., *event_shape]."""
        return self.prior.cdf(self.table, z)

    def quantile(self, u: Array) -> Array:
        """Inverse CDF of each coordinate, u in (0, 1) [..., *event_shape]."""
        return self.prior.quantile(self.table, u)

    def density(self, z: Array) -> Array:
        """Univariate density of each coordinate, [..., *event_shape]."""
        return self.prior.density(self.table, z)

    def features(self, z: Array) -> Array:
        """The decoder's input, [..., Q]."""
        return self.prior.features(self.table, z)
