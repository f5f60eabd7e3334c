"""Decoders and encoders of texts: self-attention over tokens, and n-grams."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kaem_jax.jax_utils.transforms import scan
from kaem_jax.likelihoods import Categorical
from kaem_jax.networks.base import Decoder, Network, NnxEncoder, NnxNetwork, Params
from kaem_jax.networks.token_layers import Block, Cache, HashedNgrams, dense
from kaem_jax.settings import setting


class TokenDecoder(nnx.Module):
    """The network of a `SequenceDecoder`, for T tokens of a vocabulary of V.

    A dense layer, layer norm and gelu embed the features, which are added to every position. Blocks of causal
    self-attention follow (over all positions if no tokens are read), then a dense layer to V logits per position.
    """

    def __init__(self, settings: "SequenceDecoder", in_features: int, length: int, vocabulary: int, *, rngs: nnx.Rngs):
        dtype, width = jnp.result_type(float), settings.width
        self.length, self.num_blocks, self.context = length, settings.num_blocks, settings.context
        self.head_shape = (length, settings.num_heads, width // settings.num_heads)
        # Layer norm discards the norm of its input: without a bias, latents z and 2 z would have the same output, with
        # a jump at 0.
        bias = nnx.initializers.normal(1.0)
        self.read_features = nnx.Linear(in_features, width, bias_init=bias, param_dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(length, width, param_dtype=dtype, rngs=rngs)
        self.start = vocabulary
        if settings.context:
            self.read_token = nnx.Embed(vocabulary + 1, width, param_dtype=dtype, rngs=rngs)
        for i in range(settings.num_blocks):
            setattr(self, f"block_{i}", Block(width, settings.num_heads, rngs=rngs))
        self.last_norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.write = nnx.Linear(width, vocabulary, param_dtype=dtype, rngs=rngs)
        self.ngram_order = settings.ngram_order
        if settings.ngram_order:
            self.ngrams = HashedNgrams(settings.ngram_order, settings.ngram_bits, vocabulary, rngs=rngs)

    def __call__(self, features: Array, tokens: Array) -> Array:
        """Features [N, Q] and int tokens [N, T] to logits [N, T, V]; position t reads tokens before t only."""
        before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=self.start)
        x = self._embed(features, before, jnp.arange(self.length))
        for i in range(self.num_blocks):
            block = getattr(self, f"block_{i}")
            x = block.look_back(x, self.context) if self.context else block(x, self._mask())
        logits = dense(self.write, self.last_norm(x))
        return logits + self.ngrams.of_text(tokens) if self.ngram_order else logits

    def roll_out(self, key: Array, features: Array, choose: Callable[[Array, Array], Array]) -> Array:
        """Generates int32 tokens [N, T] in order; `choose(key, logits [N, V])` gives the next of each text, int [N]."""
        size, mask = features.shape[0], self._mask()
        cache: Cache = (jnp.zeros((size, *self.head_shape), features.dtype),) * 2

        def step(carry: tuple[Array, Array, list[Cache]], position: Array) -> tuple[Any, Array]:
            recent, has_ended, caches = carry
            x = self._embed(features, recent[:, -1:], position[None])
            for i in range(self.num_blocks):
                x, caches[i] = getattr(self, f"block_{i}").step(x, caches[i], position, mask[position])
            logits = self.write(self.last_norm(x))[:, 0]
            logits = logits + self.ngrams(recent) if self.ngram_order else logits
            chosen = jnp.where(has_ended, 0, choose(jax.random.fold_in(key, position), logits))
            recent = jnp.concatenate([recent[:, 1:], chosen[:, None]], axis=1)
            return (recent, has_ended | (chosen == 0), caches), chosen

        none_yet = jnp.full((size, max(self.ngram_order - 1, 1)), self.start, jnp.int32)
        first = (none_yet, jnp.zeros(size, bool), [cache] * self.num_blocks)
        _, tokens = scan(step, first, jnp.arange(self.length))
        return tokens.T

    def _embed(self, features: Array, before: Array, positions: Array) -> Array:
        """Input of the blocks [N, n, width] at n positions; `before` [N, n] are the tokens before them."""
        x = jax.nn.gelu(self.norm(self.read_features(features)))[:, None] + self.positions(positions)
        return x + self.read_token(before) if self.context else x

    def _mask(self) -> Array:
        distance = jnp.arange(self.length)[:, None] - jnp.arange(self.length)
        return (distance >= 0) & (distance < (self.context or self.length))


@dataclasses.dataclass(frozen=True)
class BoundSequenceDecoder(NnxNetwork, Decoder):
    """A decoder of T tokens of a vocabulary of V; see `TokenDecoder`. Autoregressive if it reads earlier tokens."""

    data_shape: tuple[int, ...]
    vocabulary: int
    in_features: int
    is_autoregressive: bool

    def penalty(self, params: Params) -> Array | float:
        """The size of the n-gram table, by its weight, nats per datum."""
        weight = dict(self.options)["settings"].ngram_penalty
        return weight * jnp.sum(jnp.abs(params["ngrams"]["table"])) if weight else 0.0

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.data_shape, self.vocabulary)

    def apply(self, params: Params, features: Array, *data: Array) -> Array:
        """Features [..., B, Q], with tokens x [B, T] if autoregressive, to logits [..., B, T, V]."""
        size = features.shape[-2] if features.ndim > 1 else 1
        tokens = data[0].astype(jnp.int32) if data else jnp.zeros((size, *self.data_shape), jnp.int32)
        network = self.network(params)

        def one(features: Array) -> Array:
            return network(features, tokens)

        for _ in range(features.ndim - 2):
            one = jax.vmap(one)
        return one(features) if features.ndim > 1 else one(features[None])[0]

    def roll_out(self, key: Array, params: Params, features: Array, choose: Callable[[Array, Array], Array]) -> Array:
        flat = features.reshape(-1, features.shape[-1])
        return self.network(params).roll_out(key, flat, choose).reshape(*features.shape[:-1], *self.data_shape)


class TokenEncoder(nnx.Module):
    """The network of a `SequenceEncoder`, for T tokens of a vocabulary of V: [N, T] to [N, out_features]."""

    def __init__(self, settings: "SequenceEncoder", length: int, vocabulary: int, out_features: int, *, rngs: nnx.Rngs):
        dtype, width = jnp.result_type(float), settings.width
        self.num_blocks = settings.num_blocks
        self.read_token = nnx.Embed(vocabulary, width, param_dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(length, width, param_dtype=dtype, rngs=rngs)
        for i in range(settings.num_blocks):
            setattr(self, f"block_{i}", Block(width, settings.num_heads, rngs=rngs))
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(width, out_features, param_dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        tokens = tokens.astype(jnp.int32)
        is_read = Categorical.is_read(tokens)
        x = self.read_token(tokens) + self.positions(jnp.arange(tokens.shape[-1]))
        for i in range(self.num_blocks):
            x = getattr(self, f"block_{i}")(x, is_read[:, None, None])
        is_read = is_read.astype(x.dtype)
        weights = is_read / jnp.sum(is_read, axis=-1, keepdims=True)
        return self.project(jnp.sum(jax.nn.gelu(self.norm(x)) * weights[..., None], axis=1))


@dataclasses.dataclass(frozen=True)
class _Attention(Network):
    """Settings of blocks of self-attention over tokens.

    Attributes:
      width: width of the blocks, a multiple of `num_heads`.
      num_blocks: number of blocks.
      num_heads: attention heads of each block.
    """

    width: int = setting(128, low=1)
    num_blocks: int = setting(2, low=1)
    num_heads: int = setting(4, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(f"width={self.width} must be a multiple of num_heads={self.num_heads}")

    def _options(self, data_shape: tuple[int, ...], vocabulary: int, **others: Any) -> tuple[tuple[str, Any], ...]:
        if len(data_shape) != 1 or vocabulary < 1:
            raise ValueError(f"{type(self).__name__} is for tokens [length]; the data have shape {data_shape}")
        return (("settings", self), ("length", data_shape[0]), ("vocabulary", vocabulary), *others.items())


@dataclasses.dataclass(frozen=True)
class SequenceDecoder(_Attention):
    """Causal self-attention that maps features and earlier tokens to the logits of every token.

    Attributes:
      context: number of earlier tokens that each block looks back at; 0: blocks read features only.
      ngram_order: n of the longest hashed n-grams whose logits are added; 0: none. See `HashedNgrams`.
      ngram_bits: logarithm (base 2) of the number of entries in the n-gram table.
      ngram_penalty: weight of the sum of the magnitudes of that table, in nats per datum. With N texts, a weight of
        a / N subtracts a from the count of every n-gram, as absolute discounting does (Chen, 2009, "Performance
        prediction for exponential language models").

    Example:
      >>> decoder = kaem.SequenceDecoder(width=32, num_blocks=1)
      >>> model = kaem.Model(prior, decoder, kaem.Categorical(vocabulary=50), data_shape=(12,))
    """

    context: int = setting(16, low=0)
    ngram_order: int = setting(0, low=0, high=16)
    ngram_bits: int = setting(22, low=8, high=30, needs={"ngram_order": bool})
    ngram_penalty: float = setting(0.0, low=0, needs={"ngram_order": bool})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngram_order == 1:
            raise ValueError("ngram_order=1 must be 0, none, or at least 2: an n-gram reads n - 1 tokens")

    def decoder(
        self, num_features: int, data_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> BoundSequenceDecoder:
        vocabulary = output_shape[-1] if len(output_shape) == 2 else 0
        if self.ngram_order and not 2**self.ngram_bits > vocabulary:
            raise ValueError(f"ngram_bits={self.ngram_bits} must give more entries than there are tokens, {vocabulary}")
        options = self._options(data_shape, vocabulary, in_features=num_features)
        is_autoregressive = self.context > 0 or self.ngram_order > 0
        return BoundSequenceDecoder(TokenDecoder, options, data_shape, vocabulary, num_features, is_autoregressive)


@dataclasses.dataclass(frozen=True)
class SequenceEncoder(_Attention):
    """Self-attention over tokens, then their mean and a dense layer.

    Example:
      >>> posterior = kaem.Variational(encoder=kaem.SequenceEncoder(width=32, num_blocks=1))
    """

    def encoder(self, data_shape: tuple[int, ...], event_shape: tuple[int, ...], num_tokens: int) -> NnxEncoder:
        options = self._options(data_shape, num_tokens, out_features=2 * math.prod(event_shape))
        return NnxEncoder(TokenEncoder, options, data_shape, event_shape, takes_tokens=True)
