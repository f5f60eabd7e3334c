"""A likelihood of what is observed: values that are not a number are unknown, and say nothing."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.likelihood.likelihood import Likelihood, Params

__all__ = ["Masked"]


@dataclasses.dataclass(frozen=True)
class Masked:
    """`likelihood` without the values of x that are NaN: p of the others, exactly, since values are independent."""

    likelihood: Likelihood

    def init(self, key: Array) -> Params:
        return self.likelihood.init(key)

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        is_seen = ~jnp.isnan(x)
        return jnp.where(is_seen, self.likelihood.terms(params, output, jnp.where(is_seen, x, 0)), 0)

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        return jnp.sum(self.terms(params, output, x), axis=-1)

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        return jax.lax.map(lambda one: self.log_prob(params, output, one), x)  # all pairs at once would be [B, S, D]

    def mean(self, params: Params, output: Array) -> Array:
        return self.likelihood.mean(params, output)

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        return self.likelihood.sample(key, params, output)
