"""Resampling: unbiased counts with the structure that defines it, and agreement with blackjax."""

import blackjax.smc.resampling as blackjax_resampling
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.inference.samplers.importance_sampler import resample
from tests.truth import assert_within

SIZE, REPEATS = 12, 20_000
WEIGHTS = np.random.default_rng(1).dirichlet(np.full(SIZE, 0.5)).astype(np.float32)
WEIGHTS[[3, -1]] = 0  # a point without weight must never come back, nor the last one by rounding
WEIGHTS /= WEIGHTS.sum()


def counts_of(indices):
    """[REPEATS, SIZE] offspring."""
    return np.stack([np.sum(np.asarray(indices) == i, axis=1) for i in range(SIZE)], axis=1)


@pytest.mark.parametrize("num_draws", [SIZE, 5])
@pytest.mark.slow
def test_counts_are_unbiased_and_spread_as_those_of_blackjax(num_draws):
    """Each row has one uniform number of its own."""
    rows = jnp.broadcast_to(jnp.asarray(WEIGHTS), (REPEATS, SIZE))
    ancestors = jax.jit(resample, static_argnums=2)(jax.random.key(0), rows, num_draws)
    assert (ancestors.shape, ancestors.dtype) == ((REPEATS, num_draws), np.int32)
    ours, expected = counts_of(ancestors), num_draws * WEIGHTS
    assert np.all(ours[:, [3, -1]] == 0)
    assert_within(ours.mean(0), expected, 5 * ours.std(0) / np.sqrt(REPEATS) + 1e-5, 1)
    assert np.all((ours >= np.floor(expected - 1e-4)) & (ours <= np.ceil(expected + 1e-4)))
    with jax.numpy_dtype_promotion("standard"):
        keys = jax.random.split(jax.random.key(1), REPEATS)
        theirs = jax.vmap(lambda key: blackjax_resampling.systematic(key, jnp.asarray(WEIGHTS), num_draws))(keys)
    # Standard error of a covariance over many repeats, generous for the heavy weights.
    tolerance = 6 * np.sqrt(2 / REPEATS) * max(1.0, counts_of(theirs).var(0).max())
    assert_within(np.cov(ours.T), np.cov(counts_of(theirs).T), tolerance, 1)
