"""Every key that a run derives from its seed, so that no two uses share a key.

In jax `split(key)[i]` may equal `fold_in(key, i)`, so a key is either split or folded, never both. The one exception is
the seed's own key: it is split in three, and `fold_in` uses the four largest integers, which no split reaches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_LAST = 2**32 - 1


class RunKeys(NamedTuple):
    """Keys of a run: initial state, evaluations, figures. Evaluation does not change training."""

    state: Array
    evaluation: Array
    figures: Array


class StepKeys(NamedTuple):
    """Keys of one training step: draws, loss, sampler's loss, transposes, moves with the loss. Append new ones, so that
    earlier keys keep their values.
    """

    draw: Array
    loss: Array
    sampler: Array
    transpose: Array
    move: Array


class EvaluationKeys(NamedTuple):
    """Keys for evaluating a finished run, one per quantity, and one for the figures."""

    likelihood: Array
    reconstruction: Array
    activity: Array
    figures: Array
    mixing: Array
    clusters: Array
    latent_use: Array


def run_keys(seed: int | Array) -> RunKeys:
    """The keys that a training run derives from its seed."""
    return RunKeys(*jax.random.split(jax.random.key(seed), 3))


def step_keys(root_key: Array, step: Array | int) -> StepKeys:
    """The keys of training step `step`, 0 .. 2^32 - 5."""
    return StepKeys(*jax.random.split(jax.random.fold_in(root_key, step), 5))


def chain_start_key(root_key: Array) -> Array:
    """For the first positions of persistent chains: step 2^32 - 1, which no training reaches."""
    return jax.random.fold_in(root_key, jnp.uint32(_LAST))


def sampler_params_key(root_key: Array) -> Array:
    """For the sampler's own parameters: step 2^32 - 2."""
    return jax.random.fold_in(root_key, jnp.uint32(_LAST - 1))


def refit_key(root_key: Array, step: Array | int) -> Array:
    """For the refit of the prior after step `step`: from that of step 2^32 - 3."""
    return jax.random.fold_in(jax.random.fold_in(root_key, jnp.uint32(_LAST - 2)), step)


def stage_key(root_key: Array, step: Array | int) -> Array:
    """For the sampler of a stage that begins after step `step`: from that of step 2^32 - 4."""
    return jax.random.fold_in(jax.random.fold_in(root_key, jnp.uint32(_LAST - 3)), step)


def evaluation_keys(seed: int | Array) -> EvaluationKeys:
    """Keys for evaluating with `seed`; disjoint from every key that training or sampling derives from it."""
    return EvaluationKeys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), jnp.uint32(_LAST)), 7))


def marginal_key() -> Array:
    """For draws that represent the marginals of a prior without quantiles; always the same key."""
    return jax.random.fold_in(jax.random.key(0), jnp.uint32(_LAST - 3))


def inference_key(seed: int | Array) -> Array:
    """For scores, imputations and codes with `seed`; disjoint from every other key that is derived from it."""
    return jax.random.fold_in(jax.random.key(seed), jnp.uint32(_LAST - 2))


def sample_key(seed: int | Array) -> Array:
    """For samples with `seed`; disjoint from every key that training derives from it."""
    return jax.random.fold_in(jax.random.key(seed), jnp.uint32(_LAST - 1))
