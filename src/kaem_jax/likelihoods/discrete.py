"""Likelihoods of binary values and of sequences of tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.likelihoods.base import Likelihood, Params, check_in_unit_interval
from kaem_jax.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Bernoulli(Settings, Likelihood):
    """Independent Bernoulli values with `output` as logits; x in [0, 1].

    For fractions, `terms` are negative cross-entropies, not log-probabilities.

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


@dataclasses.dataclass(frozen=True)
class Categorical(Settings, Likelihood):
    """Tokens 0..V - 1 at T positions, each from a softmax over V outputs: output [..., B, T V], x [B, T].

    Token 0 ends a sequence. Later positions are padding: they are 0 and have probability 1, so that the probabilities
    of all sequences add up to 1.

    Attributes:
      vocabulary: V, at least 2 (the end and one token); 0: taken from the data.

    Example:
      >>> decoder = kaem.SequenceDecoder(width=32, num_blocks=1)
      >>> model = kaem.Model(prior, decoder, kaem.Categorical(vocabulary=50), data_shape=(12,))
    """

    vocabulary: int = setting(0, low=0)

    takes_logits = True
    takes_tokens = True

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(T, V), the shape of the logits for data (T,)."""
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary={self.vocabulary} must be at least 2: an end, and a token")
        return (*data_shape, self.vocabulary)

    def check_output(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 or shape[-1] != self.vocabulary:
            raise ValueError(
                f"vocabulary={self.vocabulary} needs so many logits for each token, and the decoder makes an output "
                f"of shape {shape}"
            )

    def check_data(self, x: np.ndarray) -> None:
        low, high = x.min(initial=0), x.max(initial=0)
        if np.mod(x, 1).any() or not 0 <= low <= high < self.vocabulary:
            raise ValueError(
                f"x holds numbers from {x.min()} to {x.max()}; this model takes tokens, whole numbers from 0 to "
                f"{self.vocabulary - 1}"
            )

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        """[..., B, T] nats: 0 for padding, -inf for a token outside the vocabulary."""
        tokens = x.astype(jnp.int32)
        logits = self._of_positions(output)
        chosen = jnp.sum(logits * jax.nn.one_hot(tokens, self.vocabulary, dtype=logits.dtype), axis=-1)
        chosen = jnp.where((tokens >= 0) & (tokens < self.vocabulary), chosen, -jnp.inf)
        return jnp.where(self.is_read(tokens), chosen - jax.nn.logsumexp(logits, axis=-1), 0)

    def mean(self, params: Params, output: Array) -> Array:
        """The most probable token at each position, int32 [..., T]: tokens have no mean."""
        return self._up_to_end(jnp.argmax(self._of_positions(output), axis=-1).astype(jnp.int32))

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        return self._up_to_end(jax.random.categorical(key, self._of_positions(output)).astype(jnp.int32))

    @staticmethod
    def is_read(tokens: Array) -> Array:
        """Whether a position belongs to the sequence, its end included: [..., T]."""
        is_end = (tokens == 0).astype(jnp.int32)
        return jnp.cumsum(is_end, axis=-1) - is_end == 0

    def _up_to_end(self, tokens: Array) -> Array:
        return jnp.where(self.is_read(tokens), tokens, 0)

    def _of_positions(self, output: Array) -> Array:
        return output.reshape(*output.shape[:-1], -1, self.vocabulary)
