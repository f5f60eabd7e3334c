"""Log-probabilities, imputations and codes of a linear Gaussian model, whose conditionals are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.queries import posterior_draws
from tests.builders import make_model, wild
from tests.inference.stubs import linear
from tests.truth import assert_within


@pytest.fixture(scope="module")
def case():
    """Model, parameters, data with missing values, and the mean and covariance of x."""
    model, params, law, _, _ = linear(size=5, sigma=0.5)
    rng = np.random.default_rng(3)
    x, is_missing = law.rvs(6, rng), rng.random((6, 5)) < 0.4
    is_missing[0], is_missing[1] = False, [True, True, True, True, False]
    return model, params, np.where(is_missing, np.nan, x).astype(np.float32), law.mean, law.cov


def test_it_is_log_p_of_what_is_there(case):
    model, params, x, mean, covariance = case
    there = [np.flatnonzero(~np.isnan(row)) for row in x]
    laws = [stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]) for o in there]
    expected = np.array([law.logpdf(row[o]) for law, row, o in zip(laws, x, there, strict=True)])
    of = functools.partial(
        kaem.log_prob, jax.random.key(0), model, params, num_samples=20_000, proposal=PriorProposal()
    )
    found = of(x)
    assert_within(found.value, expected, found.standard_error, 5)
    assert np.all(found.standard_error < 0.2)
    np.testing.assert_array_equal(found.is_bound, found.ess < 1000)
    # Without a search for gaps all values count, whether they are there or not; inside jit nobody can look.
    assert np.isnan(of(x, may_miss=False).value[1:]).any()
    np.testing.assert_allclose(jax.jit(lambda x: of(x).value)(x), found.value, rtol=1e-4)


def test_draws_are_those_of_what_is_missing_given_what_is_there(case):
    """Means, spreads and every draw, against the conditional normal distributions; codes against the posteriors."""
    model, params, x, mean, covariance = case
    options = {"num_draws": 400, "num_steps": 6, "proposal": Laplace(num_modes=1, num_draws=50)}
    found = [of(jax.random.key(0), model, params, x, **options) for of in (kaem.impute, kaem.infer_latents)]
    filled, codes = jax.tree.map(np.asarray, found)
    assert filled.draws.shape == (400, *x.shape)
    weight = np.asarray(params["decoder"]["weight"], float)
    for b, row in enumerate(x):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        gain = covariance[:, o] @ np.linalg.inv(covariance[np.ix_(o, o)])
        wanted, spread = mean + gain @ (row[o] - mean[o]), np.sqrt(np.diag(covariance - gain @ covariance[o]).clip(0))
        np.testing.assert_array_equal(filled.mean[b, o], row[o])
        np.testing.assert_array_equal(filled.draws[:, b, o], np.broadcast_to(row[o], (400, o.size)))
        assert_within(filled.mean[b, m], wanted[m], spread[m] / 400**0.5, 5)
        assert np.all(np.abs(filled.mean[b, m] - filled.draws[:, b, m].mean(axis=0)) > 1e-5)  # which have noise
        assert_within(filled.draws[:, b, m].mean(axis=0), wanted[m], spread[m] / 400**0.5, 5)
        np.testing.assert_allclose(filled.spread[b], np.where(np.isnan(row), spread, 0), rtol=0.2)
        gain = weight[:, o] @ np.linalg.inv(covariance[np.ix_(o, o)])
        own = np.sqrt(1 - np.sum(gain * weight[:, o], axis=1))
        assert_within(codes.mean[b], 0.5 + gain @ (row[o] - mean[o]), own / 400**0.5, 5)
        np.testing.assert_allclose(codes.spread[b], own, rtol=0.2)
    # The noise of the likelihood has a key of its own: what is drawn is not its mean moved by the chain's noise.
    noise = (filled.draws - filled.mean)[:, 1, :4].reshape(400, 4)
    assert np.linalg.cond(np.cov(noise.T)) < 1e3


def test_what_has_no_log_p_is_refused(refuses):
    key = jax.random.key(1)
    text = make_model(decoder=kaem.SequenceDecoder(width=8, num_blocks=1), likelihood=kaem.Categorical(5))
    gap, tokens = np.array([[1.0, np.nan, 2.0, 0.0]]), np.array([[1, 2, 3, 0]])
    refuses.each(
        (lambda: kaem.log_prob(key, text, None, gap), ["x has NaN", "text"]),
        (lambda: kaem.infer_latents(key, text, None, gap), ["x has NaN", "text"]),
        (lambda: kaem.log_prob(key, text, None, tokens + 0.5), ["x has fractions"]),
        (lambda: kaem.impute(key, text, None, tokens), ["parts of a text cannot be missing"]),
    )


@pytest.mark.slow
def test_codes_of_a_clustered_prior_have_its_clusters():
    """Shares of the posterior's draws, not those of their mean, where there may be no datum."""
    model = make_model("clustered")
    params, x = jax.jit(model.init)(jax.random.key(0)), jnp.ones((2, 4))
    params, options = params | {"prior": wild(params["prior"], 3.0)}, (8, 4, PriorProposal())
    z = posterior_draws(jax.random.key(1), model, params, x, *options)
    names = ("num_draws", "num_steps", "proposal")
    found = kaem.infer_latents(jax.random.key(1), model, params, x, **dict(zip(names, options, strict=True)))
    shares = jax.jit(lambda z: jnp.mean(jnp.exp(model.prior.bind(params["prior"]).log_responsibilities(z)), axis=0))
    np.testing.assert_allclose(found.clusters, shares(z), atol=1e-4)
    np.testing.assert_allclose(np.sum(found.clusters, axis=1), 1, rtol=1e-4)
    assert np.abs(shares(z) - shares(jnp.mean(z, axis=0, keepdims=True))).max() > 0.02
