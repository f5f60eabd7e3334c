"""Resamplers: unbiased counts, the structure that defines each, and agreement with blackjax."""

import blackjax.smc.resampling as blackjax_resampling
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.inference.samplers.resampling import RESAMPLERS, resample
from tests.truth import assert_within

SIZE, REPEATS = 12, 20_000


@pytest.fixture(scope="module")
def weights():
    w = np.random.default_rng(1).dirichlet(np.full(SIZE, 0.5)).astype(np.float32)
    w[3] = 0  # a particle without weight must never come back
    return w / w.sum()


def counts_of(sampler, weights):
    """[REPEATS, SIZE] offspring over independent keys."""
    keys = jax.random.split(jax.random.key(0), REPEATS)
    ancestors = jax.jit(jax.vmap(lambda key: sampler(key, jnp.asarray(weights))))(keys)
    assert ancestors.shape == (REPEATS, SIZE)
    return np.asarray(jax.vmap(lambda row: jnp.bincount(row, length=SIZE))(ancestors))


@pytest.mark.parametrize("method", list(RESAMPLERS))
def test_counts_are_unbiased(method, weights):
    counts = counts_of(RESAMPLERS[method], weights)
    assert np.all(counts.sum(1) == SIZE)
    assert np.all(counts[:, 3] == 0)
    error = counts.std(0) / np.sqrt(REPEATS)
    assert_within(counts.mean(0), SIZE * weights, 5 * error + 1e-5, 1)


@pytest.mark.parametrize("method", list(RESAMPLERS))
def test_variance_of_counts_equals_blackjax(method, weights):
    """The schemes differ by their variances; one uniform for all residual slots (mistake 9) would show here."""
    ours = counts_of(RESAMPLERS[method], weights)
    with jax.numpy_dtype_promotion("standard"):
        theirs = counts_of(lambda key, w: getattr(blackjax_resampling, method)(key, w, SIZE), weights)
    # Standard error of a variance over many repeats, generous for the heavy weights.
    tolerance = 6 * np.sqrt(2 / REPEATS) * np.maximum(theirs.var(0), 0.25)
    assert_within(ours.var(0), theirs.var(0), tolerance, 1)
    covariance_gap = np.abs(np.cov(ours.T) - np.cov(theirs.T))
    assert covariance_gap.max() < 6 * np.sqrt(2 / REPEATS) * max(1.0, theirs.var(0).max())


def test_systematic_uses_one_uniform(weights):
    counts = counts_of(RESAMPLERS["systematic"], weights)
    expected = SIZE * weights
    assert np.all((counts >= np.floor(expected - 1e-4)) & (counts <= np.ceil(expected + 1e-4)))


def test_residual_keeps_the_whole_parts_and_draws_the_rest_independently(weights):
    counts = counts_of(RESAMPLERS["residual"], weights)
    whole = np.floor(SIZE * weights)
    assert np.all(counts >= whole)
    rest = SIZE - whole.sum()
    share = (SIZE * weights - whole) / rest
    # Independent slots: multinomial variances of the remainder.
    np.testing.assert_allclose((counts - whole).var(0), rest * share * (1 - share), rtol=0.1, atol=0.01)


def test_rows_are_resampled_independently(weights):
    rows = jnp.broadcast_to(jnp.asarray(weights), (3, 2, SIZE))
    ancestors = np.asarray(resample(jax.random.key(0), rows, "multinomial"))
    assert ancestors.shape == (3, 2, SIZE)
    assert ancestors.dtype == np.int32
    assert len({tuple(row) for row in ancestors.reshape(-1, SIZE)}) == 6


def test_unknown_method_is_refused(refuses):
    with refuses(ValueError, "resampling='optimal'", "systematic"):
        resample(jax.random.key(0), jnp.ones((1, 2)) / 2, "optimal")
