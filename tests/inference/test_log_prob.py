"""Log-probabilities, imputations and codes of a linear Gaussian model, whose conditionals are known."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference import infer_latents as encoding
from kaem_jax.inference import log_prob
from kaem_jax.inference.evidence import Evidence
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.samplers import ChainDraws
from kaem_jax.likelihoods import Masked
from tests.builders import make_model, wild
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


def test_it_is_log_p_of_what_is_there(case):
    model, params, x, mean, covariance = case
    there = [np.flatnonzero(~np.isnan(row)) for row in x]
    laws = [stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]) for o in there]
    expected = np.array([law.logpdf(row[o]) for law, row, o in zip(laws, x, there, strict=True)])
    found = kaem.log_prob(jax.random.key(0), model, params, x, num_samples=20_000, proposal=PriorProposal())
    assert_within(found.value, expected, found.standard_error, 5)
    assert np.all(found.standard_error < 0.2)
    np.testing.assert_array_equal(found.is_bound, found.ess < 1000)


def test_efforts_that_are_given_are_spent(case, monkeypatch):
    """On the values that are there, with keys of their own, from Laplace approximations by default."""
    model, params, x, _, _ = case
    key, seen = jax.random.key(0), dataclasses.replace(model, likelihood=Masked(model.likelihood))
    calls, z = [], jax.random.normal(jax.random.key(1), (3, NUM_DATA, 2))

    class Chains(SimpleNamespace):
        def advance(self, key, step, state, model, params, x):
            calls.append((model, vars(self)))
            return ChainDraws(z + jax.random.normal(key), {}), state

    monkeypatch.setattr(encoding, "ProposalChains", Chains)
    found = kaem.infer_latents(key, model, params, x, num_draws=3, num_steps=7, proposal=PriorProposal())
    of_draws = np.asarray(z + jax.random.normal(key))
    np.testing.assert_allclose(found.mean, np.mean(of_draws, axis=0), atol=1e-5)
    np.testing.assert_allclose(found.spread, np.std(of_draws, axis=0, ddof=1), atol=1e-5)
    filled = kaem.impute(key, model, params, x, num_draws=3, num_steps=8)
    assert calls == [
        (seen, {"proposal": PriorProposal(), "num_steps": 7, "num_chains": 3}),
        (seen, {"proposal": Laplace(), "num_steps": 8, "num_chains": 3}),
    ]
    of_chains, of_noise = jax.random.split(key)
    output = model.decode(params, z + jax.random.normal(of_chains))
    np.testing.assert_allclose(filled.mean, np.where(np.isnan(x), np.mean(output, axis=0), x), atol=1e-4)
    noisy = output + SIGMA * jax.random.normal(of_noise, output.shape)
    np.testing.assert_allclose(filled.draws, np.where(np.isnan(x), noisy, x), atol=1e-4)
    spread = np.where(np.isnan(x), np.std(noisy, axis=0, ddof=1), 0)
    np.testing.assert_allclose(filled.spread, spread, atol=1e-4)
    whole = kaem.infer_latents(key, model, params, x[:1], num_draws=4, num_steps=7)  # nothing is missing
    assert calls[-1][0] == model
    assert np.isfinite(whole.mean).all()


def test_it_is_asked_for_as_it_is_given(case, monkeypatch):
    """With a likelihood for what is missing where something is, or may be."""
    model, params, x, _, _ = case
    key, calls = jax.random.key(0), []

    def told(key, model, params, x, **options):
        calls.append((model, len(x), options))
        return Evidence(jax.random.normal(key, (len(x),)), *jnp.ones((3, len(x))), jnp.zeros(len(x), bool))

    monkeypatch.setattr(log_prob, "log_evidence", told)
    options = {"num_samples": 70, "chunk_size": 30, "proposal": PriorProposal()}
    found = kaem.log_prob(key, model, params, x[:1], **options)
    np.testing.assert_array_equal(found.value, jax.random.normal(key, (1,)))
    kaem.log_prob(key, model, params, x, num_samples=5)
    kaem.log_prob(key, model, params, x, may_miss=False)
    jax.jit(lambda x: kaem.log_prob(key, model, params, x[:1]))(x)  # inside jit nobody can look
    masked = dataclasses.replace(model, likelihood=Masked(model.likelihood))
    of_default = {"proposal": Laplace(), "chunk_size": 20_000}
    assert calls == [
        (model, 1, options),
        (masked, NUM_DATA, of_default | {"num_samples": 5}),
        (model, NUM_DATA, of_default | {"num_samples": 1000}),
        (masked, 1, of_default | {"num_samples": 1000}),
    ]


def test_what_has_no_log_p_is_refused(refuses):
    """NaN in a text would be read as its end."""
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
def test_codes_of_a_clustered_prior_have_its_clusters(monkeypatch):
    """Shares of the posterior's draws, not those of their mean, where there may be no datum."""
    model = make_model("clustered")
    params, z = jax.jit(model.init)(jax.random.key(0)), 2 * jax.random.normal(jax.random.key(1), (4, 2, 2))
    params = params | {"prior": wild(params["prior"], 3.0)}
    monkeypatch.setattr(encoding, "posterior_draws", lambda *_: z)
    found = kaem.infer_latents(jax.random.key(1), model, params, jnp.ones((2, 4)))
    shares = jax.jit(lambda z: jnp.mean(jnp.exp(model.prior.bind(params["prior"]).log_responsibilities(z)), axis=0))
    np.testing.assert_allclose(found.clusters, shares(z), atol=1e-4)
    np.testing.assert_allclose(np.sum(found.clusters, axis=1), 1, rtol=1e-4)
    assert np.abs(shares(z) - shares(jnp.mean(z, axis=0, keepdims=True))).max() > 0.05
