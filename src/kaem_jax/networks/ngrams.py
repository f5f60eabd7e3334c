"""Hashed n-grams: logits of the next token, read from a table at hashes of the tokens before it."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

_FACTORS = (0x01000193, 0x85EBCA6B, 0xC2B2AE35)  # odd, of well-known hash functions (FNV, Murmur3)


class HashedNgrams(nnx.Module):
    """Logits of the next token, a sum over n = 2..order.

    For each n, the last n - 1 tokens are hashed to a place in one table, where V entries are read. This is a
    maximum-entropy model of n-grams whose contexts share entries when hashes collide (Mikolov et al., 2011, "Strategies
    for training large scale neural network language models"). The table starts at zero.

    Attributes:
      order: the longest n.
      vocabulary: V; in a context, the index V stands for a position before the first token.
      table: 2^bits entries, in nats.
    """

    def __init__(self, order: int, bits: int, vocabulary: int, *, rngs: nnx.Rngs):
        self.order, self.vocabulary = order, vocabulary
        self.table = nnx.Param(jnp.zeros(2**bits, jnp.result_type(float)))

    def __call__(self, recent: Array) -> Array:
        """The last order - 1 tokens, int [..., order - 1], the oldest first, to logits [..., V]."""
        table, every = self.table[...], jnp.arange(self.vocabulary, dtype=jnp.uint32)
        num_starts = np.uint32(table.size - self.vocabulary + 1)
        places = (_hash(recent[..., self.order - n :]) % num_starts for n in range(2, self.order + 1))
        return sum((table[place[..., None] + every] for place in places), jnp.zeros((), table.dtype))

    def of_text(self, tokens: Array) -> Array:
        """Logits of every position, [N, T, V], from the tokens [N, T] before it."""
        padded = jnp.pad(tokens, ((0, 0), (self.order - 1, 0)), constant_values=self.vocabulary)
        length = tokens.shape[1]
        return self(jnp.stack([padded[:, i : i + length] for i in range(self.order - 1)], axis=-1))


def _hash(context: Array) -> Array:
    """Hashes int [..., n] to uint32 [...]; the length n enters the hash."""
    first, second, third = (np.uint32(factor) for factor in _FACTORS)
    found = jnp.full(context.shape[:-1], np.uint32(context.shape[-1]), jnp.uint32)
    for i in range(context.shape[-1]):
        found = (found ^ (context[..., i].astype(jnp.uint32) + np.uint32(1))) * first
        found = (found ^ (found >> 15)) * second
    found = (found ^ (found >> 13)) * third
    return found ^ (found >> 16)
