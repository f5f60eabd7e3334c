"""Importance posterior and evidence on a linear-Gaussian model with closed forms; resampling beside blackjax."""

import functools

import blackjax.smc.resampling as blackjax_resampling
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.samplers import SharedDraws
from kaem_jax.inference.samplers.importance_sampler import resample, weigh
from tests.inference.stubs import linear
from tests.truth import assert_within


@pytest.fixture(scope="module")
def setting():
    model, params, law, _, _ = linear(size=3, sigma=1.0)
    x = np.float32(law.rvs(6, np.random.default_rng(5)))
    return model, params, x, law.logpdf(np.float64(x))


def test_points_that_cannot_have_made_a_datum_say_nothing():
    """Weights of 0, log-likelihoods of -inf, and a loss that is a number; but a datum that no point can have made is a
    failure that must show."""

    class Within:
        def pairwise_log_likelihood(self, params, z, x, bound):
            gap = jnp.abs(x[:, None] - z)
            return jnp.where(gap < 2, -params * gap, -jnp.inf)

    z, x = jnp.asarray([0.0, 1.0, 3.0]), np.float32([0.5, 2.5])

    @jax.jit
    @jax.value_and_grad
    def loss(params, x):
        found = weigh(z, Within().pairwise_log_likelihood(1.0, z, x, None))
        draws = SharedDraws(z, jax.lax.stop_gradient(jnp.exp(found.log_weights)), {})
        return jnp.sum(draws.mean_log_likelihood(Within(), params, x, None))

    weights = np.exp([-1.5, -0.5])
    wanted = -0.5 + weights @ [-1.5, -0.5] / weights.sum()
    np.testing.assert_allclose(loss(1.0, x), [wanted, wanted], rtol=1e-5)
    assert np.isnan(loss(1.0, x + 99)[0])


def test_few_draws_for_each_datum_have_the_mean_of_all_with_their_weights(setting):
    """Over 1,000 keys; each datum has its own draws."""
    model, params, x, _ = setting
    one_datum, num = {"num_samples": 200}, 1000

    @jax.jit
    def means(key):
        every, _ = kaem.Importance(**one_datum).step(key, 0, (), model, params, x)
        few, _ = kaem.Importance(num_draws=3, **one_datum).step(key, 0, (), model, params, x)
        return every.mean(every.z), few.mean(few.z), jnp.asarray(few.z.shape)

    every, few, shapes = jax.lax.map(means, jax.random.split(jax.random.key(3), num))
    np.testing.assert_array_equal(shapes[0], [3, 6, 2])
    gap = np.asarray(few - every)
    assert_within(gap.mean(0), 0, gap.std(0) / np.sqrt(num), 4.5)


def test_evidence_is_within_its_own_error(setting):
    model, params, x, log_evidence = setting
    estimate = jax.jit(lambda key: kaem.log_evidence(key, model, params, x, num_samples=4000, chunk_size=100))
    repeats = jax.lax.map(estimate, jax.random.split(jax.random.key(2), 200))
    deviation = np.asarray(repeats.value) - log_evidence
    error = np.asarray(repeats.standard_error)
    assert_within(deviation, 0, error.max(), 10)
    # 200 repeats know a spread to 5 %.
    np.testing.assert_allclose(deviation.std(0) / error.mean(0), 1, atol=0.2)
    np.testing.assert_allclose(deviation.mean(1).std() / np.asarray(repeats.mean_standard_error).mean(), 1, atol=0.2)
    # In expectation a lower bound, with bias -variance / 2.
    assert_within(deviation.mean(0), -deviation.var(0) / 2, deviation.std(0) / np.sqrt(200), 5)


def test_refusals(setting, refuses):
    model, params, x, _ = setting
    run = functools.partial(kaem.importance_posterior, jax.random.key(0), model, params)
    refuses.each(
        (lambda: run(np.zeros((6, 4)), num_samples=10), ("x has shape (6, 4)", "[B, 3]")),
        (lambda: run(x, num_samples=1), ("num_samples=1", "at least 2")),
    )


@pytest.mark.parametrize("num_draws", [12, 5])
def test_resampling_is_systematic_and_unbiased(num_draws):
    """Each row has one uniform number of its own. Counts as those of blackjax, in their means and covariances."""
    weights, num = np.random.default_rng(1).dirichlet(np.full(12, 0.5)), 4000
    weights[[3, -1]] = 0  # a point without weight must never come back, nor the last one by rounding
    weights = np.float32(weights / weights.sum())

    @jax.jit
    def counts_of_both(key, rows):
        theirs = jax.vmap(lambda key: blackjax_resampling.systematic(key, jnp.asarray(weights), num_draws))
        return jax.nn.one_hot(jnp.stack([resample(key, rows, num_draws), theirs(jax.random.split(key, num))]), 12).sum(
            2
        )

    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = np.asarray(counts_of_both(jax.random.key(0), np.tile(weights, (num, 1))), float)
    expected = num_draws * weights
    assert np.all(ours[:, [3, -1]] == 0)
    assert np.all((ours >= np.floor(expected - 1e-4)) & (ours <= np.ceil(expected + 1e-4)))
    assert_within(ours.mean(0), expected, ours.std(0) / np.sqrt(num) + 1e-6, 5)
    # Standard error of a covariance over many repeats, generous for the heavy weights.
    assert_within(np.cov(ours.T), np.cov(theirs.T), np.sqrt(2 / num) * max(1.0, theirs.var(0).max()), 6)
