"""Log-probabilities, imputations and codes of a linear Gaussian model, whose conditionals are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference import log_prob
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.likelihoods import Columns, Masked
from tests.builders import make_model
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within

SIGMA, NUM_DATA, SIZE = 0.5, 6, 5


@pytest.fixture(scope="module")
def case():
    """Model, parameters, data with missing values, and the mean and covariance of x."""
    rng = np.random.default_rng(3)
    model, params, _ = linear_gaussian(rng, 2, SIZE, SIGMA)
    weight, bias = (np.asarray(params["decoder"][name], float) for name in ("weight", "bias"))
    covariance = weight.T @ weight + SIGMA**2 * np.eye(SIZE)
    x = rng.multivariate_normal(bias, 0.5 * covariance, NUM_DATA)
    is_missing = rng.random(x.shape) < 0.4
    is_missing[0], is_missing[1] = False, [True, True, True, True, False]
    return model, params, np.where(is_missing, np.nan, x).astype(np.float32), bias, covariance


def conditional(x, mean, covariance):
    """Mean and covariance of what is missing in x, and log p of what is there."""
    m, o = np.flatnonzero(np.isnan(x)), np.flatnonzero(~np.isnan(x))
    gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    log_prob = stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(x[o])
    return mean[m] + gain @ (x[o] - mean[o]), covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)], log_prob


def test_it_is_log_p_of_what_is_there(case):
    model, params, x, mean, covariance = case
    expected = np.array([conditional(row, mean, covariance)[2] for row in x])
    found = kaem.log_prob(jax.random.key(0), model, params, x, num_samples=2000)
    assert_within(found.value, expected, 5 * found.standard_error + 2e-3, 1)
    assert found.typicality is None


@pytest.mark.slow
def test_it_is_the_same_inside_jit(case):
    model, params, x, _, _ = case
    found = kaem.log_prob(jax.random.key(0), model, params, x, num_samples=2000)
    here = jnp.asarray(x)  # known outside, and so no argument of the compiled function
    closed = jax.jit(lambda key: kaem.log_prob(key, model, params, here, num_samples=2000))
    np.testing.assert_allclose(closed(jax.random.key(0)).value, found.value, atol=1e-3)
    jitted = jax.jit(lambda key, params, x: kaem.log_prob(key, model, params, x, num_samples=2000))
    np.testing.assert_allclose(jitted(jax.random.key(0), params, x).value, found.value, atol=1e-3)


@pytest.mark.slow
def test_who_says_that_nothing_is_missing_is_believed(case):
    """The plain likelihood: the same of whole data, also inside jit, and no number where one was missing after all."""
    model, params, x, _, _ = case
    options = {"num_samples": 200, "chunk_size": 200}
    looked = kaem.log_prob(jax.random.key(0), model, params, x[:1], **options)
    assert not jnp.isnan(x[0]).any()
    said = jax.jit(lambda key, x: kaem.log_prob(key, model, params, x, may_miss=False, **options))(jax.random.key(0), x)
    np.testing.assert_allclose(said.value[0], looked.value[0], atol=0.05)
    assert jnp.isnan(said.value[1:]).all() or (said.value[1:] == -jnp.inf).all()
    means = jax.jit(
        lambda x: kaem.encode(jax.random.key(0), model, params, x, num_draws=2, num_steps=2, may_miss=False)
    )
    assert jnp.isfinite(means(x[:1]).mean).all()


class FittedError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Own(Laplace):
    """Says that it was asked."""

    def fit(self, *_):
        raise FittedError


@pytest.mark.parametrize("function", [kaem.log_prob, kaem.impute, kaem.encode])
def test_the_proposal_that_is_given_is_used(case, function):
    model, params, x, _, _ = case
    with pytest.raises(FittedError):
        function(jax.random.key(0), model, params, x, proposal=Own())


def test_efforts_that_are_given_are_spent(case):
    """By direct calls with their keys, without the values that are missing."""
    model, params, x, _, _ = case
    key, seen = jax.random.key(0), log_prob.of_observed(model)
    assert seen.likelihood == Masked(model.likelihood)
    chains = {"num_draws": 3, "num_steps": 7, "proposal": PriorProposal()}
    sampler = ProposalChains(proposal=PriorProposal(), num_steps=7, num_chains=3)
    z = sampler.advance(key, 0, (), seen, params, x)[0].z
    found = kaem.encode(key, model, params, x, **chains)
    np.testing.assert_allclose(found.mean, np.mean(z, axis=0), atol=1e-4)
    np.testing.assert_allclose(found.spread, np.std(z, axis=0, ddof=1), atol=1e-4)
    z = sampler.advance(jax.random.split(key)[0], 0, (), seen, params, x)[0].z
    filled = kaem.impute(key, model, params, x, **chains)
    assert filled.draws.shape == (3, *x.shape)
    np.testing.assert_allclose(
        filled.mean, np.where(np.isnan(x), np.mean(model.decode(params, z), axis=0), x), atol=1e-4
    )
    own, others = jax.random.split(key)  # with one key typical data would meet the same draws
    options = {"num_samples": 70, "chunk_size": 30, "proposal": PriorProposal()}
    typical = np.stack([x[0], x[0] + 1])
    found = kaem.log_prob(key, model, params, x[:1], typical=typical, **options)
    value = kaem.log_evidence(own, model, params, x[:1], **options).value
    of_typical = kaem.log_evidence(others, model, params, typical, **options).value
    np.testing.assert_allclose(found.value, value, rtol=1e-5)
    np.testing.assert_allclose(found.typicality, log_prob.typicality_of(value, of_typical), rtol=1e-3)


def test_rows_of_a_table_with_empty_cells_have_no_typicality(refuses):
    """Its likelihood takes them as it is, but fewer values have another log p."""
    model = make_model(likelihood=Columns(sizes=(1, 2)), data_shape=(3,))
    params, whole = model.init(jax.random.key(0)), np.array([[0.5, 0.0, 1.0]], np.float32)
    with refuses(ValueError, "typical needs data x without missing values"):
        kaem.log_prob(jax.random.key(1), model, params, np.array([[np.nan, 0, 1]], np.float32), typical=whole)
    with refuses(ValueError, "typical has missing values"):
        typical = np.array([[0.1, 0, 1], [np.nan, 1, 0]], np.float32)
        kaem.log_prob(jax.random.key(1), model, params, whole, typical=typical)


def test_texts_have_no_gaps(refuses):
    """Tokens are whole numbers: NaN would be read as the end of a text."""
    model = make_model(decoder=kaem.SequenceDecoder(width=8, num_blocks=1), likelihood=kaem.Categorical(5))
    params, x = model.init(jax.random.key(0)), np.array([[1.0, np.nan, 2.0, 0.0]])
    for function in (kaem.log_prob, kaem.encode):
        with refuses(ValueError, "x has NaN", "text"):
            function(jax.random.key(0), model, params, x)
    with refuses(ValueError, "parts of a text cannot be missing"):
        kaem.impute(jax.random.key(0), model, params, np.array([[1, 2, 3, 0]]))


def test_one_typical_datum_has_no_deviation(case, refuses):
    model, params, x, _, _ = case
    with refuses(ValueError, "typical has 1 data"):
        kaem.log_prob(jax.random.key(1), model, params, x[:1], typical=x[:1])


def test_two_typical_data_have_the_deviation_of_their_law():
    """By N - 1: of two data the other one is too small by a half, in the square."""
    found = log_prob.typicality_of(jnp.asarray([3.0]), jnp.asarray([0.0, 2.0]))
    np.testing.assert_allclose(found, [np.sqrt(2)], rtol=1e-6)


@pytest.mark.slow
def test_typicality_is_in_deviations_of_typical_data(case):
    """Log p of the model's own data is a chi-square in a linear model: its mean and deviation are known."""
    model, params, x, _, covariance = case
    whole = x[:1]
    z = model.prior.sample(jax.random.key(2), model.prior.tabulate(params["prior"]), (400,))
    options = {"num_samples": 300, "typical": model.simulate(jax.random.key(3), params, z)}
    found = kaem.log_prob(jax.random.key(1), model, params, whole, **options)
    constant = -0.5 * (SIZE * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    expected = (found.value[0] - (constant - SIZE / 2)) / np.sqrt(SIZE / 2)
    np.testing.assert_allclose(found.typicality[0], expected, atol=0.35)
    jitted = jax.jit(lambda key, x: kaem.log_prob(key, model, params, x, **options))
    np.testing.assert_allclose(jitted(jax.random.key(1), whole).typicality, found.typicality, atol=1e-3)
    with pytest.raises(ValueError, match="typical needs data x without missing values"):
        kaem.log_prob(jax.random.key(1), model, params, x, **options)


@pytest.mark.slow
def test_imputations_have_the_conditional_law(case):
    """Means and standard deviations of each missing value; observed values stay."""
    model, params, x, mean, covariance = case
    num_draws = 400
    found = kaem.impute(jax.random.key(2), model, params, x, num_draws=num_draws)
    for b, row in enumerate(x):
        is_missing = np.isnan(row)
        np.testing.assert_array_equal(
            found.draws[:, b, ~is_missing], np.broadcast_to(row[~is_missing], (num_draws, (~is_missing).sum()))
        )
        np.testing.assert_array_equal(found.spread[b, ~is_missing], 0)
        if not is_missing.any():
            continue
        centre, spread, _ = conditional(row, mean, covariance)
        deviation = np.sqrt(np.diag(spread))
        assert_within(found.mean[b, is_missing], centre, 5 * deviation / num_draws**0.5 + 0.02, 1)
        np.testing.assert_allclose(found.spread[b, is_missing], deviation, rtol=5 / (2 * num_draws) ** 0.5)
        np.testing.assert_allclose(
            np.std(found.draws[:, b, is_missing], axis=0, ddof=1), found.spread[b, is_missing], rtol=1e-3
        )


@pytest.mark.slow
def test_codes_are_posterior_moments(case):
    model, params, x, mean, _ = case
    weight = np.asarray(params["decoder"]["weight"], float)
    found = kaem.encode(jax.random.key(3), model, params, x, num_draws=400)
    assert found.clusters is None
    for b, row in enumerate(x):
        o = ~np.isnan(row)
        precision = np.eye(2) + weight[:, o] @ weight[:, o].T / SIGMA**2
        covariance = np.linalg.inv(precision)
        centre = covariance @ weight[:, o] @ (row[o] - mean[o]) / SIGMA**2
        deviation = np.sqrt(np.diag(covariance))
        assert_within(found.mean[b], centre, 5 * deviation / 20 + 0.01, 1)
        np.testing.assert_allclose(found.spread[b], deviation, rtol=0.2)


@pytest.mark.slow
def test_codes_of_a_clustered_prior_have_its_clusters():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3)
    model = make_model(prior)
    params = model.init(jax.random.key(0))
    bank = params["prior"]["bank"]
    bank["coefficients"] = 3 * jax.random.normal(jax.random.key(2), bank["coefficients"].shape)
    key, x = jax.random.key(1), jnp.ones((2, 4))
    found = kaem.encode(key, model, params, x, num_draws=4, num_steps=10)
    # Shares of the posterior's draws, not those of their mean, where there may be no datum.
    sampler = ProposalChains(proposal=Laplace(), num_steps=10, num_chains=4)
    z = sampler.advance(key, 0, (), model, params, x)[0].z
    expected, of_mean = (
        jnp.mean(jnp.exp(prior.log_responsibilities(params["prior"], latents)), axis=0)
        for latents in (z, jnp.mean(z, axis=0, keepdims=True))
    )
    np.testing.assert_allclose(found.clusters, expected, atol=2e-3)
    assert np.abs(expected - of_mean).max() > 0.05
