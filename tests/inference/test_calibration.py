"""Simulation-based calibration (Talts et al., 2018): a datum's own latent has a uniform rank among its draws."""

import jax
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from tests.builders import make_model, step, wild

pytestmark = pytest.mark.release

NUM_DATA, NUM_DRAWS, NUM_BINS = 500, 19, 20


@pytest.fixture(scope="module")
def simulated():
    """A mixture prior with several modes, two latents, a non-linear decoder: model, parameters, latents, data."""
    model = make_model(decoder=kaem.MLP((8,), "tanh"), likelihood=kaem.Gaussian(0.4), num_each=2, grid_size=8)
    params, prior = model.init(jax.random.key(0)), model.prior
    params["prior"] = wild(params["prior"], 1.5)
    z = prior.bind(params["prior"]).sample(jax.random.key(2), (NUM_DATA,))
    return model, params, z, model.simulate(jax.random.key(3), params, z)


def p_values(model, params, z, x, draws):
    """Of chi-squared tests that ranks are uniform: those of each latent, and of log p(x, z), among draws [S, N, Q].

    Latents alone would not see draws of the prior in place of the posterior; a quantity that depends on the datum does
    (Modrak et al., 2023).
    """

    def quantities(z):
        joint = model.prior.bind(params["prior"]).log_prob(z) + model.log_likelihood(params, z, x)
        return np.concatenate([np.asarray(z), np.asarray(joint)[..., None]], axis=-1)

    ranks = np.sum(quantities(draws) < quantities(z), axis=0)
    assert ranks.shape == (NUM_DATA, 3)
    return [stats.chisquare(np.bincount(column, minlength=NUM_BINS)).pvalue for column in ranks.T]


def p_values_of(simulated, kernel, num_steps, step_size):
    """Those of Langevin chains that start at draws of the prior."""
    model, params, z, x = simulated
    sampler = kaem.Langevin(kernel=kernel, num_steps=num_steps, step_size=step_size, num_chains=NUM_DRAWS)
    state = sampler.init(jax.random.key(5), model, params, NUM_DATA)
    draws, _ = step(sampler, jax.random.key(7), 0, state, model, params, x)
    return p_values(model, params, z, x, draws.z)


def test_ranks_are_uniform(simulated):
    assert min(p_values_of(simulated, "mala", 300, 0.05)) > 0.01


@pytest.mark.parametrize("settings", [("ula", 100, 0.3), ("mala", 5, 0.01)])
def test_a_large_step_of_ula_and_short_chains_from_the_prior_fail(simulated, settings):
    assert min(p_values_of(simulated, *settings)) < 1e-4
