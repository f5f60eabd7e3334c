"""A likelihood of the observed values: NaN marks a value that is unknown, or known to lie between bounds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params
from kaem_jax.settings import setting
from kaem_jax.settings.registry import LIKELIHOODS


@dataclasses.dataclass(frozen=True)
class Masked(Likelihood):
    """`likelihood` of the values of x that are not NaN; exact, since values are independent.

    The likelihood must be differentiable at its own mean.

    Attributes:
      likelihood: p(x | output).
      low, high: bounds of each of the D values; empty: none. A NaN contributes the probability of lying between its
        bounds, which other values ignore. The likelihood must have `has_intervals`.
    """

    likelihood: Likelihood = setting(kinds=LIKELIHOODS)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.low and not self.likelihood.has_intervals:
            raise ValueError(f"likelihood={self.likelihood} has no probabilities of intervals: leave out bounds")

    may_miss = True

    @property
    def takes_logits(self) -> bool:  # type: ignore[override]
        return self.likelihood.takes_logits

    @property
    def takes_tokens(self) -> bool:  # type: ignore[override]
        return self.likelihood.takes_tokens

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.likelihood.output_shape(data_shape)

    def init(self, key: Array) -> Params:
        return self.likelihood.init(key)

    def check_output(self, shape: tuple[int, ...]) -> None:
        self.likelihood.check_output(shape)

    def check_data(self, x: np.ndarray) -> None:
        self.likelihood.check_data(x)

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        is_seen = ~jnp.isnan(x)
        # NaN is replaced by the mean: at 0 the density may not be smooth, and `where` passes non-finite gradients on.
        possible = jax.lax.stop_gradient(self.likelihood.mean(params, output))
        unknown = self._log_mass(params, output) if self.low else 0
        return jnp.where(is_seen, self.likelihood.terms(params, output, jnp.where(is_seen, x, possible)), unknown)

    def mean(self, params: Params, output: Array) -> Array:
        mean = self.likelihood.mean(params, output)
        if not self.low:
            return mean
        # In an exponential family, bounds move the mean by the slope of their log-probability in the natural parameter.
        slope = jax.grad(lambda output: jnp.sum(self._log_mass(params, output)))(output)
        return mean + self.likelihood.dispersion(params, output) * slope

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        if not self.low:
            return self.likelihood.sample(key, params, output)
        return self.likelihood.sample_within(key, params, output, *self._bounds(output))

    def _log_mass(self, params: Params, output: Array) -> Array:
        return self.likelihood.log_mass(params, output, *self._bounds(output))

    def _bounds(self, output: Array) -> tuple[Array, Array]:
        return jnp.asarray(self.low, output.dtype), jnp.asarray(self.high, output.dtype)
