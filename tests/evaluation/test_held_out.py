"""Held-out numbers against models whose truth is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.evaluation.metrics.held_out import held_out_log_likelihood
from kaem_jax.evaluation.metrics.latents import activity
from kaem_jax.evaluation.metrics.reconstruction import reconstruct
from kaem_jax.inference.evidence import Evidence, make_estimator
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.samplers import FrozenSampler, make_sampler
from kaem_jax.likelihoods import Columns
from tests.linear_gaussian import linear_gaussian

REPEATS = 40


@pytest.fixture(scope="module")
def gaussian():
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)
    z = jax.random.normal(jax.random.key(0), (25, 2))
    return model, params, exact, model.simulate(jax.random.key(1), params, z)


ESTIMATORS = {
    "importance": make_estimator("importance", num_samples=8000, chunk_size=500),
    "ais": make_estimator("ais", num_temperatures=40, num_chains=16, batch_size=25),
}


def frozen(kind, **settings):
    """A sampler with nothing adapted."""
    sampler = make_sampler(kind, **settings)
    return FrozenSampler.freeze(sampler, sampler.init(jax.random.key(0), *linear_gaussian_parts(), 1), 0)


def linear_gaussian_parts():
    return linear_gaussian(np.random.default_rng(0), num_latents=2, size=4, sigma=0.5)[:2]


@pytest.mark.sweep
@pytest.mark.parametrize("method", ESTIMATORS)
def test_log_likelihood_is_exact_within_a_calibrated_error(gaussian, method):
    """Over 40 keys: the mean is the exact one, and the reported error is the spread."""
    model, params, exact, x = gaussian
    truth = exact(np.asarray(x, np.float64))[1].mean()
    values = [
        held_out_log_likelihood(key, model, params, x, ESTIMATORS[method])[0]
        for key in jax.random.split(jax.random.key(2), REPEATS)
    ]
    means = np.array([v["log_likelihood"] for v in values])
    errors = np.array([v["log_likelihood_standard_error"] for v in values])
    # A bound by Jensen's inequality: below the truth by half the variance of one datum's estimate, far less than 0.01.
    assert abs(means.mean() - truth) < 4 * means.std() / np.sqrt(REPEATS) + 0.01
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), means.std(), rtol=0.4)


def test_numbers_of_all_data_are_those_of_single_ones(gaussian):
    model, params, _, x = gaussian
    value, ess, is_bound = jnp.asarray([1.0, 2, 6]), jnp.asarray([3.0, 50, 9]), jnp.asarray([True, False, False])
    evidence = Evidence(value, 0 * value, jnp.float32(0.25), ess, is_bound)
    found, effort = held_out_log_likelihood(jax.random.key(0), model, params, x[:3], lambda *_: (evidence, "effort"))
    assert {name: float(number) for name, number in found.items()} == {
        "log_likelihood": 3, "log_likelihood_standard_error": 0.25, "ess": 9, "ess_min": 3, "is_bound": 1,
        "num_bounds": 1,
    }  # fmt: skip
    assert effort == "effort"


def test_reconstruction_is_the_posterior_mean_of_the_same_datum(gaussian):
    """Mistake 16: reversing the order of the data must give a much larger error."""
    model, params, exact, x = gaussian
    posterior = frozen("importance", num_samples=20_000)
    again, error = reconstruct(jax.random.key(3), model, params, x, posterior)
    mean = exact(np.asarray(x, np.float64))[0]
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    np.testing.assert_allclose(again, mean @ weight + bias, atol=0.05)
    np.testing.assert_allclose(error, np.mean((mean @ weight + bias - x) ** 2), rtol=0.05)
    assert np.mean((np.asarray(again)[::-1] - x) ** 2) > 3 * error


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("importance", {"num_samples": 300}),
        ("langevin", {"kernel": "mala", "num_steps": 150, "step_size": 0.03}),
    ],
)
def test_activity_is_the_share_of_variance_that_data_decide(kind, settings):
    """Two latents that the data show, one that they do not; noisy posterior means must not make it look active."""
    model, params, _ = linear_gaussian(np.random.default_rng(3), num_latents=3, size=4, sigma=0.7)
    weight = params["decoder"]["weight"].at[2].set(0)
    params["decoder"]["weight"] = weight
    z = jax.random.normal(jax.random.key(0), (1500, 3))
    x = model.simulate(jax.random.key(1), params, z)
    shares = np.asarray(activity(jax.random.key(2), model, params, x, frozen(kind, **settings)).share)
    w = np.asarray(weight, np.float64)
    covariance = w.T @ w + 0.7**2 * np.eye(4)
    truth = np.diag(w @ np.linalg.inv(covariance) @ w.T)  # Var E[z | x] of a unit normal prior
    assert truth[2] == 0
    np.testing.assert_allclose(shares, truth, atol=0.12)
    assert abs(shares[2]) < 0.1  # the variance of one posterior mean alone is up to 1


@pytest.mark.slow
def test_the_error_of_activity_is_its_spread_over_data():
    """Posteriors of one chain: shares of latents that no datum decides scatter about 0, as far as their errors say."""
    model, params, _ = linear_gaussian(np.random.default_rng(3), num_latents=2, size=3, sigma=0.7)
    params["decoder"]["weight"] = np.zeros((2, 3), np.float32)
    sampler = frozen("referenced", proposal=PriorProposal(), num_steps=1, num_chains=1)
    x, keys = np.zeros((200, 3), np.float32), jax.random.split(jax.random.key(0), 60)
    found = [activity(key, model, params, x, sampler) for key in keys]
    shares, errors = (np.stack([getattr(one, name) for one in found]) for name in ("share", "standard_error"))
    np.testing.assert_allclose(errors, 1 / 200**0.5, rtol=4 * (8 / 800) ** 0.5)  # products of normals: kurtosis 9
    assert abs(shares.mean()) < 4 * errors.mean() / 120**0.5
    assert shares.std() == pytest.approx(errors.mean(), rel=4 / 240**0.5)


def test_the_error_of_activity_covers_proposals_that_data_share():
    """One latent that the data show, and one that they do not: the latter's means err for all data together."""
    model, params, _ = linear_gaussian(np.random.default_rng(3), num_latents=2, size=3, sigma=0.7)
    params["decoder"]["weight"] = params["decoder"]["weight"].at[1].set(0)
    x = model.simulate(jax.random.key(1), params, jax.random.normal(jax.random.key(0), (300, 2)))
    sampler, keys = frozen("importance", num_samples=60), jax.random.split(jax.random.key(0), 60)
    found = [activity(key, model, params, x, sampler) for key in keys]
    shares, errors = (np.stack([getattr(one, name)[1] for one in found]) for name in ("share", "standard_error"))
    assert abs(shares.mean()) < 4 * shares.std() / 60**0.5
    assert shares.std() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.4)


def test_errors_of_reconstructions_are_those_of_what_is_there(gaussian):
    """Missing values of a table have no error; those beside them keep theirs."""
    model, params, _, x = gaussian
    columns = dataclasses.replace(model, likelihood=Columns((1,) * 4, sigma=0.5, learn_sigma=False))
    posterior = FrozenSampler(ProposalChains(proposal=PriorProposal(), num_steps=1), (), 0)
    is_missing = np.random.default_rng(1).random(x.shape) < 0.3
    with_holes = np.where(is_missing, np.nan, x)
    again, error = reconstruct(jax.random.key(2), columns, params, with_holes, posterior)
    assert np.isfinite(again).all()
    assert float(error) == pytest.approx(np.mean((np.asarray(again - x))[~is_missing] ** 2), rel=1e-4)
