"""A likelihood of what is observed: values that are NaN are unknown, or known to lie between bounds."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params, Termwise
from kaem_jax.settings import setting
from kaem_jax.settings.registry import LIKELIHOODS

__all__ = ["Masked"]


@dataclasses.dataclass(frozen=True)
class Masked(Termwise):
    """`likelihood` without the values of x that are NaN: p of the others, exactly, since values are independent.

    The likelihood must be differentiable at its own mean.

    Attributes:
      likelihood: p(x | output).
      low, high: bounds of each of the D values, of which the likelihood has `log_mass` and `sample_within`; empty:
        none. A value that is NaN has the probability of lying between them. Others are taken as they are.
    """

    likelihood: Likelihood = setting(kinds=LIKELIHOODS)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.low and not hasattr(self.likelihood, "log_mass"):
            raise ValueError(f"likelihood={self.likelihood} has no probabilities of intervals: leave out bounds")

    may_miss = True

    @property
    def takes_logits(self) -> bool:
        return getattr(self.likelihood, "takes_logits", False)

    @property
    def takes_tokens(self) -> bool:
        return getattr(self.likelihood, "takes_tokens", False)

    def init(self, key: Array) -> Params:
        return self.likelihood.init(key)

    def check_output(self, shape: tuple[int, ...]) -> None:
        check = getattr(self.likelihood, "check_output", None)
        if check is not None:
            check(shape)

    def check_data(self, x: np.ndarray) -> None:
        check = getattr(self.likelihood, "check_data", None)
        if check is not None:
            check(x)

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        is_seen = ~jnp.isnan(x)
        # Where a density is not smooth, at 0 perhaps, a gradient that is not finite would get through the choice below.
        possible = jax.lax.stop_gradient(self.likelihood.mean(params, output))
        unknown = self._log_mass(params, output) if self.low else 0
        return jnp.where(is_seen, self.likelihood.terms(params, output, jnp.where(is_seen, x, possible)), unknown)

    def mean(self, params: Params, output: Array) -> Array:
        mean = self.likelihood.mean(params, output)
        if not self.low:
            return mean
        # In an exponential family, bounds move the mean by the slope of their log-probability in the natural parameter.
        slope = jax.grad(lambda output: jnp.sum(self._log_mass(params, output)))(output)
        return mean + cast(Any, self.likelihood).dispersion(params, output) * slope

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        if not self.low:
            return self.likelihood.sample(key, params, output)
        return cast(Any, self.likelihood).sample_within(key, params, output, *self._bounds(output))

    def _log_mass(self, params: Params, output: Array) -> Array:
        return cast(Any, self.likelihood).log_mass(params, output, *self._bounds(output))

    def _bounds(self, output: Array) -> tuple[Array, Array]:
        return jnp.asarray(self.low, output.dtype), jnp.asarray(self.high, output.dtype)
