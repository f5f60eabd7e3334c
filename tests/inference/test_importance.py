"""Importance posterior and evidence on a linear-Gaussian model with closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.inference.samplers import SharedDraws
from kaem_jax.inference.samplers.importance_sampler import weigh
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(5)
    model, params, exact = linear_gaussian(rng, num_latents=2, size=3, sigma=1.0)
    x = rng.normal(size=(6, 3)).astype(np.float32)
    return model, params, jnp.asarray(x), *exact(x.astype(float))


def test_points_that_cannot_have_made_a_datum_say_nothing():
    """Weights of 0, log-likelihoods of -inf, and a loss that is a number; but a datum that no point can have made is a
    failure that must show."""

    class Within:
        def pairwise_log_likelihood(self, params, z, x, bound):
            gap = jnp.abs(x[:, None] - z)
            return jnp.where(gap < 2, -params * gap, -jnp.inf)

    z, x = jnp.asarray([0.0, 1.0, 3.0]), jnp.asarray([0.5, 2.5])

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
    """Over 2,000 keys; each datum has its own draws."""
    model, params, x, *_ = setting
    one_datum = {"num_samples": 200}

    @jax.jit
    def means(key):
        every, _ = kaem.Importance(**one_datum).step(key, 0, (), model, params, x)
        few, _ = kaem.Importance(num_draws=3, **one_datum).step(key, 0, (), model, params, x)
        return every.mean(every.z), few.mean(few.z), jnp.asarray(few.z.shape)

    every, few, shapes = jax.lax.map(means, jax.random.split(jax.random.key(3), 2000))
    np.testing.assert_array_equal(shapes[0], [3, 6, 2])
    gap = np.asarray(few - every)
    assert_within(gap.mean(0), 0, gap.std(0) / np.sqrt(2000), 4.5)


def test_evidence_is_within_its_own_error(setting):
    """Value, standard errors and coverage over repeats."""
    model, params, x, _, log_evidence = setting
    estimate = jax.jit(lambda key: kaem.log_evidence(key, model, params, x, num_samples=4000, chunk_size=100))
    repeats = jax.lax.map(estimate, jax.random.split(jax.random.key(2), 200))
    deviation = np.asarray(repeats.value) - log_evidence
    error = np.asarray(repeats.standard_error)
    assert_within(deviation, 0, error.max(), 10)
    # 200 repeats know a spread to 5 %.
    np.testing.assert_allclose(deviation.std(0) / error.mean(0), 1, atol=0.2)
    np.testing.assert_allclose(deviation.mean(1).std() / np.asarray(repeats.mean_standard_error).mean(), 1, atol=0.2)
    # In expectation a lower bound, with bias -variance / 2.
    assert np.all(deviation.mean(0) < 5 * deviation.std(0) / np.sqrt(200))


def test_refusals(setting, refuses):
    model, params, x, _, _ = setting
    for data, options, parts in (
        (jnp.zeros((6, 4)), {}, ("x has shape (6, 4)", "[B, 3]")),
        (x, {"num_samples": 1}, ("num_samples=1", "at least 2")),
        (x, {"points": "halton"}, ("points='halton'", "sobol")),
    ):
        with refuses(ValueError, *parts):
            kaem.importance_posterior(jax.random.key(0), model, params, data, **{"num_samples": 10} | options)
