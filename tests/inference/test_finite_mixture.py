"""Finite mixtures of a linear Gaussian model against its conditionals, and of binary models against enumeration."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.finite_mixture import _ratio
from tests.builders import make_model
from tests.linear_gaussian import Linear
from tests.truth import assert_within

NAN, INF = np.nan, np.inf
WEIGHT = np.array([[1.0, 0.5, -0.3], [0.2, -0.8, 0.6]])
BIAS = np.array([0.1, -0.2, 0.3])
COVARIANCE = WEIGHT.T @ WEIGHT + 0.25 * np.eye(3)
NORMAL = kaem.ClusteredPrior(num_latents=2, num_clusters=1, shape="gaussian", spread=0.0)


@pytest.fixture(scope="module")
def case():
    """N(0, I) in two latents, three columns with noise of 0.5, as 65,536 points."""
    model = kaem.Model(NORMAL, Linear((3,)), kaem.Columns(sizes=(1, 1, 1), sigma=0.5, learn_sigma=False))
    decoder = {"weight": jnp.asarray(WEIGHT, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}
    params = {"prior": NORMAL.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}
    return model, params, kaem.FiniteMixture.of(jax.random.key(1), model, params, 2**16)


def test_marginals_and_conditionals_are_those_of_the_gaussian(case):
    """Densities of x1, and of x1 given x2, to 1e-4; errors cover the truth of whole rows, of parts and of bounds."""
    grid, x = np.linspace(-2, 2, 41), np.random.default_rng(0).multivariate_normal(BIAS, COVARIANCE, 200)
    rows = np.stack([grid, np.full(41, NAN), np.full(41, NAN)], axis=1)

    @jax.jit
    def seen(mixture):
        given, within = mixture.given([NAN, 0.7, NAN]), mixture.between([-INF, 0.5, -INF], [INF, 1.0, 0.0])
        conditions = within.log_condition(), given.given([NAN, NAN, -0.1]).log_condition()
        outside = within.log_prob([[0.0, 0.4, -1.0], [0.0, 0.7, -1.0], [0.0, NAN, 0.1]])
        of_rows = [one.log_prob(rows) for one in (mixture, given, within.given([NAN, 0.7, NAN]))]
        return of_rows, mixture.log_prob(np.append(x, [[NAN, 0.7, -0.1]], axis=0)), conditions, outside

    (of_first, of_given, of_both), of_x, (condition, twice), outside = seen(case[2])
    marginal = stats.norm(BIAS[0], COVARIANCE[0, 0] ** 0.5)
    np.testing.assert_allclose(np.exp(of_first.value), marginal.pdf(grid), atol=1e-4)
    gain = COVARIANCE[0, 1] / COVARIANCE[1, 1]
    given = stats.norm(BIAS[0] + gain * (0.7 - BIAS[1]), (COVARIANCE[0, 0] - gain * COVARIANCE[0, 1]) ** 0.5)
    np.testing.assert_allclose(np.exp(of_given.value), given.pdf(grid), atol=1e-4)
    assert_within(of_given.value, given.logpdf(grid), of_given.standard_error, 5)
    z = (of_x.value[:200] - stats.multivariate_normal(BIAS, COVARIANCE).logpdf(x)) / of_x.standard_error[:200]
    assert 0.7 < np.sqrt(np.mean(np.square(z))) < 1.5  # t with 7 degrees of freedom: 1.18
    truth = stats.multivariate_normal(BIAS[1:], COVARIANCE[1:, 1:]).cdf([1.0, 0.0], lower_limit=[0.5, -INF])
    np.testing.assert_allclose(np.exp(condition.value), truth, atol=1e-4)
    assert_within(condition.value, np.log(truth), condition.standard_error, 5)
    np.testing.assert_array_equal(np.isneginf(outside.value), [True, False, True])
    assert np.isfinite(outside.standard_error).all()
    np.testing.assert_allclose(twice.value, of_x.value[200], rtol=1e-5)
    # What is given and bounded together: p(x1 | x2 = 0.7, x3 < 0), by Bayes' rule.
    pairs = COVARIANCE[:, 1:2] / COVARIANCE[1, 1]
    mean, rest = BIAS + pairs[:, 0] * (0.7 - BIAS[1]), COVARIANCE - pairs @ COVARIANCE[1:2]
    slope = rest[2, 0] / rest[0, 0]
    third = stats.norm(mean[2] + slope * (grid - mean[0]), (rest[2, 2] - slope * rest[0, 2]) ** 0.5).cdf(0)
    truth = given.pdf(grid) * third / stats.norm(mean[2], rest[2, 2] ** 0.5).cdf(0)
    np.testing.assert_allclose(np.exp(of_both.value), truth, atol=3e-4)


def test_draws_meet_what_is_given_and_follow_the_conditional(case):
    mixture = case[2].given([NAN, 0.7, NAN]).between([-INF, -INF, -INF], [INF, INF, 0.0])
    x = np.asarray(mixture.sample(jax.random.key(2), 20_000), float)
    assert (x[:, 1] == np.float32(0.7)).all()
    assert (x[:, 2] <= 0).all()
    gain = COVARIANCE[:, 1] / COVARIANCE[1, 1]
    mean, rest = BIAS + gain * (0.7 - BIAS[1]), COVARIANCE - np.outer(gain, COVARIANCE[1])
    rows = np.random.default_rng(1).multivariate_normal(mean, rest, 100_000)
    rows = rows[rows[:, 2] < 0]
    for i in (0, 2):
        assert stats.ks_2samp(x[:, i], rows[:, i]).pvalue > 1e-4


@pytest.mark.parametrize("prior", [pytest.param("clustered", marks=pytest.mark.slow), "mixture"])
def test_all_states_add_up_to_one(prior):
    """For bits; and a bit that is given has the share of the states that have it. All inside jit, and outside the same,
    with a search for gaps."""
    model = make_model(prior, data_shape=(2, 3), likelihood=kaem.Bernoulli())
    states = np.array(list(itertools.product([0.0, 1.0], repeat=6)), np.float32).reshape(-1, 2, 3)
    one, low, high, has_it = np.full((2, 3), NAN), np.zeros((2, 3)), np.ones((2, 3)), states[:, 1, 2] == 1
    one[1, 2] = low[1, 2] = 1

    @jax.jit
    def seen(params):
        params = params | {"decoder": jax.tree.map(lambda leaf: 3 * leaf, params["decoder"])}
        mixture = kaem.FiniteMixture.of(jax.random.key(4), model, params, 1000)
        given, between = mixture.given(one), mixture.between(low, high)
        conditions = given.log_condition().value, between.log_condition().value
        draws = given.sample(jax.random.key(5), 20_000).reshape(-1, 6)
        return mixture, mixture.log_prob(states).value, conditions, given.log_prob(states[has_it]).value, draws

    mixture, value, conditions, of_given, draws = seen(jax.jit(model.init)(jax.random.key(3)))
    assert mixture.output.shape[:2] == (8, 125)
    np.testing.assert_allclose(mixture.log_prob(states).value, value, rtol=1e-5)
    p = np.exp(np.asarray(value, float))
    assert abs(p.sum() - 1) < 1e-5
    for condition in conditions:
        assert abs(np.exp(condition) - p[has_it].sum()) < 1e-5
    shares = p[has_it] / p[has_it].sum()
    np.testing.assert_allclose(np.exp(of_given), shares, rtol=1e-4)
    mean = shares @ states[has_it].reshape(-1, 6)
    assert_within(np.mean(draws, axis=0), mean, np.sqrt(np.abs(mean * (1 - mean)) / 20_000) + 1e-6, 4.5)


def test_what_has_no_finite_mixture_is_refused(case, refuses):
    model, params, _ = case
    neural = dataclasses.replace(model, prior=kaem.NeuralPrior(num_latents=2))
    text = kaem.Model(NORMAL, kaem.SequenceDecoder(width=8, num_blocks=1, context=2), kaem.Categorical(5), (4,))
    of_text = jax.eval_shape(text.init, jax.random.key(0))
    refuses.each(
        (lambda: kaem.FiniteMixture.of(jax.random.key(0), model, params, num_nets=1), ("num_nets=1", "2 or more")),
        (lambda: kaem.FiniteMixture.of(jax.random.key(0), neural, params), ("neural prior", "quantiles")),
        (lambda: jax.eval_shape(lambda p: kaem.FiniteMixture.of(jax.random.key(0), text, p), of_text), ("reads the",)),
    )


def test_what_numerator_and_condition_share_is_no_error():
    condition = jnp.asarray([0.0, 1.0, 2.0])
    found = _ratio(condition + 3, condition)
    np.testing.assert_allclose([found.value, found.standard_error], [3, 0], atol=1e-6)
