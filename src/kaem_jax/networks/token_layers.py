"""Layers of networks of tokens: self-attention blocks, and hashed n-grams."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

Cache = tuple[Array, Array]  # keys and values of all positions, [N, T, heads, width / heads] each
_FACTORS = (0x01000193, 0x85EBCA6B, 0xC2B2AE35)  # odd, of well-known hash functions (FNV, Murmur3)


def dense(layer: nnx.Linear, x: Array) -> Array:
    """Applies the layer to [..., n] as one matrix product.

    On CPUs XLA takes two to three times as long for a gradient that sums over two leading axes.
    """
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Block(nnx.Module):
    """Self-attention, then a two-layer network; a layer norm precedes each, and each adds to its input.

    Xiong et al., 2020, "On layer normalization in the transformer architecture".
    """

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
        dtype = jnp.result_type(float)
        self.num_heads = num_heads
        self.attention_norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(width, 3 * width, param_dtype=dtype, rngs=rngs)
        self.join = nnx.Linear(width, width, param_dtype=dtype, rngs=rngs)
        self.network_norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, param_dtype=dtype, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        """All positions at once: x [N, T, width]; mask, bool [T, T] or [N, 1, T, T], says which position sees which."""
        queries, keys, values = self._heads(x)
        return self._finish(x, jax.nn.dot_product_attention(queries, keys, values, mask=mask))

    def look_back(self, x: Array, context: int) -> Array:
        """All positions at once; each sees the last `context` positions, its own included."""
        queries, keys, values = self._heads(x)
        return self._finish(x, _attend_back(queries, keys, values, context))

    def step(self, x: Array, cache: Cache, position: Array, mask: Array) -> tuple[Array, Cache]:
        """One position x [N, 1, width], with the cache of those before it and its row of the mask, bool [T]."""
        queries, *new = self._heads(x)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, one.astype(old.dtype), position, axis=1)
            for old, one in zip(cache, new, strict=True)
        )
        found = jax.nn.dot_product_attention(queries, keys, values, mask=mask[None, None, None])
        return self._finish(x, found), (keys, values)

    def _heads(self, x: Array) -> list[Array]:
        projected = dense(self.project, self.attention_norm(x))
        return [part.reshape(*part.shape[:2], self.num_heads, -1) for part in jnp.split(projected, 3, axis=-1)]

    def _finish(self, x: Array, attended: Array) -> Array:
        x = x + dense(self.join, attended.reshape(x.shape))
        return x + dense(self.narrow, jax.nn.gelu(dense(self.widen, self.network_norm(x))))


def _attend_back(queries: Array, keys: Array, values: Array, context: int) -> Array:
    """Attention [N, T, heads, width / heads] of each position to the `context` positions up to its own.

    Queries are cut into pieces of `context`; each piece sees itself and the one before: 2 T context scores, not T^2.
    """
    length = queries.shape[1]
    num = -(-length // context)

    def pieces(a: Array) -> Array:
        padded = jnp.pad(a, ((0, 0), (0, num * context - length), (0, 0), (0, 0)))
        return padded.reshape(a.shape[0], num, context, *a.shape[2:])

    def with_the_one_before(a: Array) -> Array:
        return jnp.concatenate([jnp.pad(a[:, :-1], ((0, 0), (1, 0), *[(0, 0)] * 3)), a], axis=2)

    queries, keys, values = pieces(queries), with_the_one_before(pieces(keys)), with_the_one_before(pieces(values))
    distance = context + jnp.arange(context)[:, None] - jnp.arange(2 * context)
    there = (jnp.arange(2 * context) >= context) | (jnp.arange(num)[:, None] > 0)  # nothing is before the first piece
    mask = ((distance >= 0) & (distance < context)) & there[:, None]
    attend = jax.vmap(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, mask=mask[:, None]))
    found = attend(queries, keys, values)
    return found.reshape(found.shape[0], num * context, *found.shape[3:])[:, :length]


class HashedNgrams(nnx.Module):
    """Logits of the next token, a sum over n = 2..order.

    For each n, a hash of the last n - 1 tokens is a place in one table, where V entries are read: a maximum-entropy
    model of n-grams whose contexts share entries on collisions (Mikolov et al., 2011, "Strategies for training large
    scale neural network language models"). The table starts at zero.

    Attributes:
      order: the longest n.
      vocabulary: V; in a context, the index V stands for a position before the first token.
      table: 2^bits entries, in nats.
    """

    def __init__(self, order: int, bits: int, vocabulary: int, *, rngs: nnx.Rngs):
        self.order, self.vocabulary = order, vocabulary
        self.table = nnx.Param(jnp.zeros(2**bits, jnp.result_type(float)))

    def __call__(self, recent: Array) -> Array:
        """Logits [..., V] from the last order - 1 tokens, int [..., order - 1], the oldest first."""
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
    first, second, third = (np.uint32(factor) for factor in _FACTORS)
    found = jnp.full(context.shape[:-1], np.uint32(context.shape[-1]), jnp.uint32)
    for i in range(context.shape[-1]):
        found = (found ^ (context[..., i].astype(jnp.uint32) + np.uint32(1))) * first
        found = (found ^ (found >> 15)) * second
    found = (found ^ (found >> 13)) * third
    return found ^ (found >> 16)
