"""Blocks of self-attention, which the sequence decoder and the encoder of sequences are made of."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

__all__ = ["Block", "Cache"]

Cache = tuple[Array, Array]  # keys and values of all positions, [N, T, heads, width / heads] each


class Block(nnx.Module):
    """Self-attention, then a network of two layers, each after a layer norm and added to its input.

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
        """All positions at once: x [N, T, width], mask bool [T, T] or [N, 1, T, T], which position sees which."""
        queries, keys, values = self._heads(x)
        return self._finish(x, jax.nn.dot_product_attention(queries, keys, values, mask=mask))

    def step(self, x: Array, cache: Cache, position: Array, mask: Array) -> tuple[Array, Cache]:
        """One position after the others: x [N, 1, width], and the mask's row of this position, bool [T]."""
        queries, *new = self._heads(x)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, one.astype(old.dtype), position, axis=1)
            for old, one in zip(cache, new, strict=True)
        )
        found = jax.nn.dot_product_attention(queries, keys, values, mask=mask[None, None, None])
        return self._finish(x, found), (keys, values)

    def _heads(self, x: Array) -> list[Array]:
        """Queries, keys and values, [N, T, heads, width / heads] each."""
        projected = self.project(self.attention_norm(x))
        return [part.reshape(*part.shape[:2], self.num_heads, -1) for part in jnp.split(projected, 3, axis=-1)]

    def _finish(self, x: Array, attended: Array) -> Array:
        x = x + self.join(attended.reshape(x.shape))
        return x + self.narrow(jax.nn.gelu(self.widen(self.network_norm(x))))
