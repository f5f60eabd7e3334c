"""The Bernoulli likelihood of binary values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params, check_in_unit_interval
from kaem_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Bernoulli(Settings, Likelihood):
    """Independent Bernoulli values with `output` as logits; x in [0, 1].

    For values between 0 and 1, `terms` are negative cross-entropies, neither log-densities nor log-probabilities.

    Example:
      >>> model = kaem.Model(prior, kaem.MLP(), kaem.Bernoulli(), data_shape=(20,))
    """

    takes_logits = True
    has_intervals = True

    def check_data(self, x: np.ndarray) -> None:
        check_in_unit_interval(x, "a Bernoulli likelihood")

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        return x * output - jax.nn.softplus(output)

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        product = jnp.matmul(x, output.T, precision=jax.lax.Precision.HIGHEST)
        return product - jnp.sum(jax.nn.softplus(output), axis=-1)

    def mean(self, params: Params, output: Array) -> Array:
        return jax.nn.sigmoid(output)

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        return jax.random.bernoulli(key, self.mean(params, output)).astype(output.dtype)

    def log_mass(self, params: Params, output: Array, low: Array, high: Array) -> Array:
        can_be_0 = jnp.where(low <= 0, jax.nn.log_sigmoid(-output), -jnp.inf)
        can_be_1 = jnp.where(high >= 1, jax.nn.log_sigmoid(output), -jnp.inf)
        return jnp.where((low <= 0) & (high >= 1), 0, jnp.maximum(can_be_0, can_be_1))

    def sample_within(self, key: Array, params: Params, output: Array, low: Array, high: Array) -> Array:
        return jnp.clip(self.sample(key, params, output), jnp.ceil(low), jnp.floor(high))

    def dispersion(self, params: Params, output: Array) -> float:
        return 1.0
