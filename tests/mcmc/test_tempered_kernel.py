"""One round around anybody's moves: blackjax's HMC and NUTS on two modes, in a scan of one's own."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import kaem_jax as kaem
from tests.truth import assert_within

BETAS = np.float32(np.linspace(0, 1, 8) ** 2)
STEPS = jnp.asarray(0.3 * (4 - 3 * BETAS))
START = {"a": np.full((8, 4, 2), -2, np.float32), "b": np.full((8, 4), -2, np.float32)}


def log_prior(z):
    return jnp.sum(stats.norm.logpdf(z["a"], 0, 3.0)) + stats.norm.logpdf(z["b"], 0, 3.0)


def log_likelihood(z):
    row = jnp.append(z["a"], z["b"])
    right, left = (jnp.sum(stats.norm.logpdf(row, mean, 0.5)) for mean in (2.0, -2.0))
    return jnp.logaddexp(jnp.log(0.7) + right, jnp.log(0.3) + left) - log_prior(z)


def diagonal(make, *rest):
    return lambda log_density, rung: make(log_density, STEPS[rung], jnp.ones(3), *rest)


@pytest.mark.parametrize("make", [(blackjax.hmc, 6), pytest.param((blackjax.nuts,), marks=pytest.mark.slow)])
def test_blackjax_moves_between_exchanges(make):
    kernel = kaem.mcmc.tempered_kernel(log_prior, log_likelihood, BETAS, diagonal(*make))

    @jax.jit
    def run(keys):
        return jax.lax.scan(lambda state, key: kernel.step(key, state), kernel.init(START), keys)

    state, info = run(jax.random.split(jax.random.key(0), 2000))
    rungs = np.sort(np.asarray(state.rung), axis=0)
    np.testing.assert_array_equal(rungs, np.tile(np.arange(8)[:, None], 4))
    assert int(state.num_rounds) == 2000
    warm = jax.tree.map(lambda leaf: np.asarray(leaf)[400:], info)
    is_right = (warm.top["b"] > 0).astype(float)
    effective = kaem.mcmc.effective_sample_size(is_right, pooled=True)
    assert_within(is_right.mean(), 0.7, np.sqrt(0.21 / effective), 3.5)
    log_z, error = kaem.mcmc.bridge_log_z(warm.log_likelihood, BETAS)
    assert_within(log_z, 0, error, 3.5)
    trips = warm.round_trips.sum(axis=0)
    assert np.all((trips > 32) & (trips < 8 * 1600 / 14))  # 14 exchanges for one
    assert warm.move.acceptance_rate.shape == (1600, 8, 4)
    assert warm.move.acceptance_rate.mean() > 0.85  # with the step size of its rung
    # The last rung's gain is that of its position, unless that came by an exchange, as it does in even rounds.
    gain = jax.jit(jax.vmap(jax.vmap(log_likelihood)))(warm.top)
    is_own = np.isclose(warm.log_likelihood[:, -1], gain, rtol=1e-5, atol=1e-5)
    assert is_own[1::2].all()
    assert 0.1 < is_own[::2].mean() < 0.9


def test_refusals(refuses):
    with refuses(ValueError, "(8, 4)", "T=5"):
        kaem.mcmc.tempered_kernel(log_prior, log_likelihood, np.linspace(0, 1, 5), None).init(START)
    with refuses(ValueError, "swap='odd'", "even_odd"):
        kaem.mcmc.tempered_kernel(log_prior, log_likelihood, BETAS, None, swap="odd")
