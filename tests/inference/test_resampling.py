"""Resamplers: unbiased counts, the structure that defines each, and agreement with blackjax."""

import blackjax.smc.resampling as blackjax_resampling
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.inference.samplers.resampling import RESAMPLERS, resample
from tests.truth import assert_within

SIZE, REPEATS = 12, 20_000
WEIGHTS = np.random.default_rng(1).dirichlet(np.full(SIZE, 0.5)).astype(np.float32)
WEIGHTS[3] = 0  # a particle without weight must never come back
WEIGHTS /= WEIGHTS.sum()


def counts_of(sampler):
    """[REPEATS, SIZE] offspring over independent keys."""
    keys = jax.random.split(jax.random.key(0), REPEATS)
    ancestors = jax.jit(jax.vmap(lambda key: sampler(key, jnp.asarray(WEIGHTS))))(keys)
    assert ancestors.shape == (REPEATS, SIZE)
    return np.stack([np.sum(np.asarray(ancestors) == i, axis=1) for i in range(SIZE)], axis=1)


@pytest.mark.parametrize("method", list(RESAMPLERS))
@pytest.mark.slow
def test_counts_are_unbiased_and_spread_as_those_of_blackjax(method):
    """The schemes differ by their variances; one uniform for all residual slots (mistake 9) would show here."""
    ours = counts_of(RESAMPLERS[method])
    assert np.all(ours.sum(1) == SIZE)
    assert np.all(ours[:, 3] == 0)
    expected = SIZE * WEIGHTS
    assert_within(ours.mean(0), expected, 5 * ours.std(0) / np.sqrt(REPEATS) + 1e-5, 1)
    if method == "systematic":  # one uniform number
        assert np.all((ours >= np.floor(expected - 1e-4)) & (ours <= np.ceil(expected + 1e-4)))
    if method == "residual":
        assert np.all(ours >= np.floor(expected))
    with jax.numpy_dtype_promotion("standard"):
        theirs = counts_of(lambda key, w: getattr(blackjax_resampling, method)(key, w, SIZE))
    # Standard error of a variance over many repeats, generous for the heavy weights.
    tolerance = 6 * np.sqrt(2 / REPEATS)
    assert_within(ours.var(0), theirs.var(0), tolerance * np.maximum(theirs.var(0), 0.25), 1)
    assert_within(np.cov(ours.T), np.cov(theirs.T), tolerance * max(1.0, theirs.var(0).max()), 1)


def test_rows_are_resampled_independently(refuses):
    rows = jnp.broadcast_to(jnp.asarray(WEIGHTS), (3, 2, SIZE))
    ancestors = np.asarray(resample(jax.random.key(0), rows, "multinomial"))
    assert ancestors.shape == (3, 2, SIZE)
    assert ancestors.dtype == np.int32
    assert len({tuple(row) for row in ancestors.reshape(-1, SIZE)}) == 6
    with refuses(ValueError, "resampling='optimal'", "systematic"):
        resample(jax.random.key(0), jnp.ones((1, 2)) / 2, "optimal")
