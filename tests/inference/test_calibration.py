"""Simulation-based calibration (Talts et al., 2018): a datum's own latent has a uniform rank among its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import Laplace
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.settings.registry import SAMPLERS
from tests.builders import make_model, wild

pytestmark = pytest.mark.release

NUM_DATA, NUM_DRAWS, NUM_BINS = 500, 19, 20
FROM_LAPLACE = ProposalChains(proposal=Laplace(num_modes=4, num_draws=500), num_chains=NUM_DRAWS, num_steps=40)


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


def chains(model, params, x, kernel, num_steps, step_size, precondition=False, **tempered):
    sampler = SAMPLERS.get("tempered" if tempered else "langevin")(
        kernel=kernel, num_steps=num_steps, step_size=step_size, num_chains=NUM_DRAWS, precondition=precondition,
        **tempered,
    )  # fmt: skip
    state = sampler.init(jax.random.key(5), model, params, NUM_DATA)
    draw = jax.jit(lambda key, state, x: sampler.step(key, 0, state, model, params, x))
    if precondition:  # a first draw estimates the metric
        _, state = draw(jax.random.key(6), state, x)
        assert float(jnp.abs(state.metric.likelihood).max()) > 0
    return draw(jax.random.key(7), state, x)[0].z


@pytest.mark.parametrize(
    "draws",
    [
        lambda *of: chains(*of, "mala", 300, 0.05),
        lambda *of: chains(*of, "mala", 150, 0.4, precondition=True),
        lambda *of: chains(*of, "mala", 100, 0.05, num_temperatures=4, steps_per_round=2),
        lambda model, params, x: FROM_LAPLACE.draw(jax.random.key(11), model, params, x).z,
    ],
    ids=["mala", "preconditioned_mala", "tempered", "chains_from_laplace"],
)
def test_ranks_are_uniform(simulated, draws):
    model, params, z, x = simulated
    assert min(p_values(model, params, z, x, draws(model, params, x))) > 0.01


@pytest.mark.parametrize("settings", [("ula", 100, 0.3), ("mala", 5, 0.01)])
def test_a_large_step_of_ula_and_short_chains_from_the_prior_fail(simulated, settings):
    """What the test can see."""
    model, params, z, x = simulated
    assert min(p_values(model, params, z, x, chains(model, params, x, *settings))) < 1e-4
