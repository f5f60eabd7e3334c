"""Resampling schemes: from normalised weights to equally weighted ancestors, unbiased (Douc, Cappe & Moulines 2005)."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.settings.arguments import check_choice

Resampling = Literal["multinomial", "residual", "stratified", "systematic"]

__all__ = ["RESAMPLERS", "Resampling", "multinomial", "resample", "residual", "stratified", "systematic"]


def resample(key: Array, weights: Array, method: str = "systematic") -> Array:
    """Draws S ancestors for each row of weights; every ancestor then weighs exactly 1 / S.

    Args:
      key: a PRNG key; rows are resampled independently.
      weights: [..., S], non-negative, summing to one over the last axis.
      method: a key of `RESAMPLERS`.

    Returns:
      int32 [..., S] indices into the last axis; index s occurs S w_s times on average.

    Raises:
      ValueError: `method` is unknown.
    """
    check_choice("resampling", method, sorted(RESAMPLERS))
    rows = weights.reshape(-1, weights.shape[-1])
    ancestors = jax.vmap(RESAMPLERS[method])(jax.random.split(key, rows.shape[0]), rows)
    return ancestors.reshape(weights.shape)


def systematic(key: Array, weights: Array) -> Array:
    """One uniform number shifts an even comb over the cumulative weights: each count is the floor or ceil of S w."""
    return _invert(weights, (_comb(weights) + jax.random.uniform(key, dtype=weights.dtype)) / weights.shape[-1])


def stratified(key: Array, weights: Array) -> Array:
    """One uniform number in each of S equal strata."""
    return _invert(
        weights, (_comb(weights) + jax.random.uniform(key, weights.shape, weights.dtype)) / weights.shape[-1]
    )


def multinomial(key: Array, weights: Array) -> Array:
    """S independent draws."""
    return _invert(weights, jax.random.uniform(key, weights.shape, weights.dtype))


def residual(key: Array, weights: Array) -> Array:
    """floor(S w) copies of each, and independent draws from the remainders for the slots that are left."""
    size = weights.shape[-1]
    whole = jnp.floor(size * weights)
    remainder, copies = size * weights - whole, whole.astype(jnp.int32)
    drawn = _invert(remainder, jax.random.uniform(key, weights.shape, weights.dtype))
    # Slot i is filled by the deterministic copies while they last, then by its own independent draw.
    slot = jnp.arange(size)
    kept = jnp.searchsorted(jnp.cumsum(copies), slot, side="right").astype(jnp.int32)
    return jnp.where(slot < jnp.sum(copies), kept, drawn)


def _comb(weights: Array) -> Array:
    """0, 1, ..., S - 1 in the dtype of the weights."""
    return jnp.arange(weights.shape[-1], dtype=weights.dtype)


def _invert(weights: Array, u: Array) -> Array:
    """Inverse of the cumulative weights at u in [0, 1); weights need not be normalised, zero ones are never chosen."""
    cumulative = jnp.cumsum(weights)
    # The result is at most the last index with a positive weight: rounding may make u * total equal to the total.
    last = weights.shape[-1] - 1 - jnp.argmax(weights[::-1] > 0)
    found = jnp.searchsorted(cumulative, u * cumulative[-1], side="right")
    return jnp.minimum(found, last).astype(jnp.int32)


RESAMPLERS: dict[str, Callable[[Array, Array], Array]] = {
    "multinomial": multinomial,
    "residual": residual,
    "stratified": stratified,
    "systematic": systematic,
}
