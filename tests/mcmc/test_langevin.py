"""Langevin kernels: invariance, bias of ULA, bounds, independence of chains."""

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kaem_jax as kaem
from kaem_jax.mcmc import HMC, MALA, ULA, DrawWarning, explain_warning, split_r_hat
from kaem_jax.mcmc.kernels import _reflect, value_and_score
from tests.truth import assert_within


def normal(z):
    return -0.5 * jnp.sum(z * z, axis=-1)


def flat(z):
    return jnp.zeros(z.shape[:-1])


def run_of(log_density, z0, **options):
    run = jax.jit(lambda key, z0: kaem.mcmc.langevin_posterior(key, log_density, z0, **options))
    return run(jax.random.key(1), z0)


def gaussian_target(precision):
    centre = np.array([1.0, -0.5])

    def log_density(z):
        return -0.5 * jnp.sum(z**2 + precision * (z - jnp.asarray(centre, z.dtype)) ** 2, axis=-1)

    return log_density, precision * centre / (1 + precision), 1 / (1 + precision)


def test_an_exact_kernel_reaches_a_gaussian_posterior():
    """From far away to N(mean, variance): moments and law, with the step size of each row of chains adapted."""
    (log_density, mean, variance), kernel = gaussian_target(3.0), HMC(3)
    start, steps = np.full((4, 3000, 2), 3.0), np.float32([[0.02], [0.1], [0.5], [1.5]])
    run = run_of(log_density, start, kernel=kernel, num_steps=20, step_size=steps, warmup_steps=60)
    # Rows that started with very different steps end with the same acceptance.
    np.testing.assert_allclose(np.mean(run.acceptance, axis=1), kernel.target_acceptance, atol=0.03)
    assert run.step_size.shape == (4, 1)
    for z, middle in zip(np.asarray(run.z).reshape(-1, 2).T, mean, strict=True):
        assert stats.kstest(z, stats.norm(middle, np.sqrt(variance)).cdf).pvalue > 1e-3


def test_hmc_moves_along_the_trajectory_of_a_second_implementation(x64):
    """Leapfrogs of blackjax from the same momentum, in each coordinate's own unit, and the energy that they keep."""
    log_density, scale = gaussian_target(3.0)[0], np.array([0.5, 2.0])
    z, eta, kernel = np.array([[1.0, -0.4], [0.8, -0.3]]), np.array([0.02, 0.03]), HMC(5)
    score_of = lambda z: value_and_score(log_density, z)[1]  # noqa: E731

    @jax.jit
    def ours(key, z):
        unit = jnp.broadcast_to(scale, z.shape)
        move = kernel.propose(key, z, score_of(z), jnp.asarray(eta), scale=unit, score_of=score_of)
        gain = log_density(move.position) - log_density(z)
        stride = 2 * (move.noise_back(jnp.ones(z.shape)) - move.noise_back(jnp.zeros(z.shape)))
        momentum = jax.random.normal(jax.random.split(key)[0], z.shape) / scale
        return move.position, kernel.acceptance(move, score_of(move.position), gain), stride[:, 0] / scale[0], momentum

    @jax.jit
    @jax.vmap
    def theirs(z, momentum, length):
        kinetic = blackjax.mcmc.metrics.gaussian_euclidean(jnp.asarray(scale**2)).kinetic_energy
        step = blackjax.mcmc.integrators.velocity_verlet(lambda z: log_density(z), kinetic)
        state = blackjax.mcmc.integrators.IntegratorState(z, momentum, log_density(z), score_of(z))
        energy = log_density(z) - kinetic(momentum)
        for _ in range(5):
            state = step(state, length)
        return state.position, jnp.exp(log_density(state.position) - kinetic(state.momentum) - energy)

    position, acceptance, length, momentum = ours(jax.random.key(0), z)
    assert_within(length / np.sqrt(2 * eta), 1, 0.2, 1)
    wanted, ratio = theirs(z, momentum, length)
    np.testing.assert_allclose(position, wanted, rtol=1e-10)
    np.testing.assert_allclose(acceptance, np.minimum(1, ratio), rtol=1e-8)
    assert np.any((acceptance > 0.1) & (acceptance < 0.99))


def test_bias_of_ula_shrinks_with_the_step(rng):
    """For N(0, v) the stationary variance of ULA is v / (1 - eta / (2 v)): wrong by a known O(eta)."""
    variance, num, steps = 0.5, 20_000, np.float32([[0.3], [0.1]])
    start = np.sqrt(variance) * rng.normal(size=(2, num, 1))
    run = run_of(lambda z: normal(z) / variance, start, kernel=ULA(), num_steps=40, step_size=steps)
    stationary = variance / (1 - steps[:, 0] / (2 * variance))
    error = stationary * np.sqrt(2 / num)
    assert_within(np.var(run.z, axis=(1, 2)), stationary, error, 4)
    assert np.all(stationary - variance > 8 * error)  # the bias is seen, not lost in noise


def test_ula_reflects_at_bounds(rng):
    """A flat density on [0, 2] stays flat; some moves fold more than once."""
    start = rng.uniform(0, 2, (20_000, 1))
    folded = run_of(flat, start, bounds=(0.0, 2.0), kernel="ula", num_steps=5, step_size=2.0)
    assert stats.kstest(folded.z[:, 0], stats.uniform(0, 2).cdf).pvalue > 1e-3


def test_reflections_stay_inside_bounds_that_rounding_leaves(rng):
    """In float32 0.1 + 0.8 - 0.8 is below 0.1, where the density is 0 and its score NaN."""
    edges = np.array([0.1 - 3e-8, 0.1 + 1e-8, 0.1, 0.9, 0.9 + 6e-8])
    z = np.concatenate([edges, rng.uniform(-2, 3, 200_000)])
    both, above, below = jax.jit(lambda z: [_reflect(z, ends) for ends in ((0.1, 0.9), (0.1, np.inf), (-np.inf, 0.9))])(
        z
    )
    assert np.all((both >= np.float32(0.1)) & (both <= np.float32(0.9)))
    np.testing.assert_allclose(both, 0.1 + np.abs((z + 0.7) % 1.6 - 0.8), atol=1e-6)
    np.testing.assert_allclose(above, np.maximum(z, 0.2 - z), atol=1e-6)
    np.testing.assert_allclose(below, np.minimum(z, 1.8 - z), atol=1e-6)


def test_chains_do_not_influence_each_other(rng):
    options = {"kernel": MALA(), "num_steps": 4, "step_size": 0.2}
    posterior = functools.partial(kaem.mcmc.langevin_posterior, jax.random.key(1), gaussian_target(3.0)[0], **options)
    run, start = jax.jit(lambda z0: posterior(z0).z), rng.normal(size=(3, 4, 2))
    moved = start.copy()
    moved[1, 2] = 5
    same = np.all(np.asarray(run(moved)) == np.asarray(run(start)), axis=-1)
    assert not same[1, 2]
    assert same.sum() == 11


def test_impossible_requests_are_refused(refuses):
    for options, parts in (
        ({"kernel": "nuts"}, ["kernel='nuts'", "hmc, mala, ula"]),
        ({"kernel": 3}, ["kernel=3", "MALA()"]),
        ({"num_steps": 0}, ["num_steps=0", "at least 1"]),
        ({"kernel": "ula", "step_size": 0.1, "warmup_steps": 3}, ["ULA()", "step_size"]),
        ({"kernel": ULA()}, ["ULA()", "step_size"]),
        ({"warmup_steps": 0}, ["warmup_steps=0", "step_size"]),
        ({"step_size": 0.1, "bounds": (-1.0, 1.0), "frame": object()}, ["bounds=(-1.0, 1.0) cannot be turned"]),
    ):
        with refuses(ValueError, *parts):
            kaem.mcmc.langevin_posterior(jax.random.key(0), flat, np.zeros((2, 1)), **{"num_steps": 1} | options)


def test_what_did_not_mix_is_said():
    """Far too large a step moves nothing; in far too small ones the halves of each chain are elsewhere."""
    start, scale = np.full((2, 200, 2), 0.02), 0.01
    stuck, slow = np.asarray(
        run_of(lambda z: normal(z / scale), start, num_steps=50, step_size=np.float32([[10.0], [1e-9]])).warning
    )
    short = run_of(lambda z: normal(z / scale), start[0], num_steps=3, step_size=1e-4).warning
    assert np.all(stuck & DrawWarning.REJECTED)
    assert np.mean((slow & DrawWarning.R_HAT) > 0) > 0.5
    assert np.all(np.asarray(short) & DrawWarning.R_HAT)  # too short to say
    assert explain_warning(np.zeros(3, np.int32)) == []
    assert any("tenth of the proposals" in text for text in explain_warning(stuck))
    assert any("R-hat" in text for text in explain_warning(slow))


def test_split_r_hat_is_blackjax_on_halves(rng):
    trace = rng.normal(size=(400, 3)).cumsum(axis=0) * [[1.0, 0.0, 1e-3]] + rng.normal(size=(400, 3))
    with jax.numpy_dtype_promotion("standard"):
        theirs = jax.jit(blackjax.diagnostics.potential_scale_reduction)(trace.reshape(2, 200, 3))
    np.testing.assert_allclose(jax.jit(split_r_hat)(trace), theirs, rtol=1e-4)
    assert np.isnan(split_r_hat(np.zeros((3, 2)))).all()
