"""Langevin kernels: scores by coordinate, invariance, bias of ULA, bounds, independence of chains, blackjax."""

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.mcmc import MALA, PCNL, ULA, DrawWarning, explain_warning, split_r_hat
from kaem_jax.mcmc.kernels import _reflect, value_and_score
from kaem_jax.mcmc.langevin import TARGET_ACCEPTANCE
from tests.builders import wild_prior

NUM_CHAINS = 100_000
KS_LEVEL = 1.9495  # the 1e-3 point of the Kolmogorov distribution


def run_of(log_density, z0, seed=0, **options):
    """`langevin_posterior`, compiled."""
    return jax.jit(lambda key, z0: kaem.langevin_posterior(key, log_density, z0, **options))(jax.random.key(seed), z0)


def ks_statistic(sample, cdf):
    level = cdf(np.sort(np.asarray(sample, np.float64)))
    steps = np.arange(level.size + 1) / level.size
    return max(np.max(steps[1:] - level), np.max(level - steps[:-1])) * np.sqrt(level.size)


@functools.cache
def wild(kind, base="gaussian"):
    """A prior with several modes, its parameters and its table."""
    prior, params = wild_prior(kind, 2.0, num_each=2, base_density=base, grid_size=8)
    return prior, params, prior.tabulate(params)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kind", "base"), [("product", "gaussian"), ("mixture", "gaussian"), ("product", "uniform"), ("mixture", "uniform")]
)
def test_mala_leaves_priors_invariant(kind, base):
    """Chains that start in the target, exactly, are still there; steps big enough to reject and to meet the bounds."""
    prior, params, table = wild(kind, base)
    start = prior.sample(jax.random.key(1), table, (NUM_CHAINS,))

    def log_density(z):
        return prior.log_prob(params, z, table)

    run = run_of(log_density, start, seed=2, num_steps=10, step_size=0.3, bounds=prior.bounds)
    assert 0.3 < float(jnp.mean(run.acceptance)) < 0.95
    moved = np.mean(np.asarray(run.z) != np.asarray(start))
    assert moved > 0.95
    levels = np.asarray(prior.cdf(table, run.z)).reshape(NUM_CHAINS, -1)
    for column in levels.T:
        assert ks_statistic(column, lambda u: u) < KS_LEVEL


@pytest.mark.slow
def test_mala_leaves_a_tilted_target_invariant():
    """A power posterior of a mixture prior in one dimension, drawn exactly by its own quantile on a fine grid."""
    prior, params, table = wild("mixture")
    z = jnp.linspace(-6, 6, 20_001)[:, None] * jnp.ones(2)

    def log_density(z):
        return prior.log_prob(params, z, table) - 0.5 * jnp.sum((jnp.sin(2 * z) - 0.4) ** 2, axis=-1) / 0.3

    # Coordinates are independent under this target, so each marginal is one-dimensional.
    other = jnp.zeros_like(z)
    marginals = [log_density(z * mask + other) for mask in (jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0]))]
    cdfs = []
    for marginal in marginals:
        weight = np.exp(np.asarray(marginal, np.float64))
        total = np.concatenate([[0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
        cdfs.append(total / total[-1])
    grid = np.asarray(z[:, 0], np.float64)
    u = np.random.default_rng(1).uniform(size=(NUM_CHAINS, 2))
    start = jnp.asarray(np.stack([np.interp(u[:, i], cdfs[i], grid) for i in range(2)], axis=-1), jnp.float32)
    run = run_of(log_density, start, seed=2, num_steps=10, step_size=0.2)
    assert 0.3 < float(jnp.mean(run.acceptance)) < 0.95
    for i in range(2):
        assert ks_statistic(run.z[:, i], lambda x, i=i: np.interp(x, grid, cdfs[i])) < KS_LEVEL


def gaussian_target(precision):
    """N(0, 1) prior times a Gaussian likelihood: N(mean, 1 / (1 + precision)) for each coordinate."""
    centre = jnp.asarray([1.0, -0.5])
    mean, variance = precision * centre / (1 + precision), 1 / (1 + precision)

    def log_density(z):
        return -0.5 * jnp.sum(z**2 + precision * (z - centre) ** 2, axis=-1)

    return log_density, np.asarray(mean), variance


@pytest.mark.sweep
@pytest.mark.parametrize("kernel", ["mala", "pcnl"])
def test_exact_kernels_reach_a_gaussian_posterior(kernel):
    """From far away to N(mean, variance): moments and law, with the step size of each row of chains adapted."""
    log_density, mean, variance = gaussian_target(3.0)
    start, steps = jnp.full((4, NUM_CHAINS // 4, 2), 3.0), jnp.asarray([[0.02], [0.1], [0.5], [1.5]])
    run = run_of(log_density, start, kernel=kernel, num_steps=20, step_size=steps, warmup_steps=60)
    # Rows that started with very different steps end with the same acceptance.
    np.testing.assert_allclose(np.mean(run.acceptance, axis=1), TARGET_ACCEPTANCE, atol=0.03)
    assert run.step_size.shape == (4, 1)
    for i in range(2):
        flat = np.asarray(run.z[..., i]).ravel()
        assert ks_statistic(flat, stats.norm(mean[i], np.sqrt(variance)).cdf) < KS_LEVEL


def test_pcnl_does_not_feel_the_dimension_of_the_prior():
    """In 2,000 dimensions of pure prior pCNL accepts everything; MALA at that step is rejected."""
    start = jax.random.normal(jax.random.key(0), (64, 2000))
    log_density = lambda z: -0.5 * jnp.sum(z * z, axis=-1)  # noqa: E731
    pcnl, mala = (
        np.mean(run_of(log_density, start, seed=1, kernel=kernel, num_steps=5, step_size=0.5).acceptance)
        for kernel in ("pcnl", "mala")
    )
    assert pcnl > 0.99
    assert mala < 0.01


def test_bias_of_ula_shrinks_with_the_step():
    """For N(0, v) the stationary variance of ULA is v / (1 - eta / (2 v)): wrong by a known O(eta)."""
    variance = 0.5
    log_density = lambda z: -0.5 * jnp.sum(z * z, axis=-1) / variance  # noqa: E731
    start = jnp.sqrt(variance) * jax.random.normal(jax.random.key(0), (NUM_CHAINS, 1))
    for eta, steps in ((0.2, 30), (0.05, 80)):
        run = run_of(log_density, start, seed=1, kernel=ULA(), num_steps=steps, step_size=eta)
        stationary = variance / (1 - eta / (2 * variance))
        error = stationary * np.sqrt(2 / NUM_CHAINS)
        assert abs(float(jnp.var(run.z)) - stationary) < 4 * error
        assert stationary - variance > 8 * error  # the bias is seen, not lost in noise


def test_ula_reflects_at_bounds():
    """A flat density on [0, 2] stays flat, and on [0, inf) nothing leaves."""
    flat = lambda z: jnp.zeros(z.shape[:-1])  # noqa: E731
    start = 2 * jax.random.uniform(jax.random.key(0), (NUM_CHAINS, 1))
    # A step as wide as the support: some moves fold more than once.
    run = functools.partial(kaem.langevin_posterior, jax.random.key(1), flat, start, kernel="ula", num_steps=5)
    folded = run(step_size=2.0, bounds=(0.0, 2.0))
    assert ks_statistic(folded.z[:, 0], lambda z: np.clip(z / 2, 0, 1)) < KS_LEVEL
    half = run(step_size=2.0, bounds=(0.0, np.inf))
    assert np.all(np.asarray(half.z) >= 0)
    mirrored = kaem.langevin_posterior(
        jax.random.key(1), flat, -start, kernel="ula", num_steps=5, step_size=2.0, bounds=(-np.inf, 0.0)
    )
    assert np.all(np.asarray(mirrored.z) <= 0)
    # |z0 + N(0, 4 * 5)| folds a random walk at 0.
    expected = np.abs(np.asarray(start)[:, 0] + np.sqrt(20) * np.random.default_rng(0).normal(size=NUM_CHAINS))
    assert stats.ks_2samp(np.asarray(half.z)[:, 0], expected).pvalue > 1e-3


def test_reflections_stay_inside_bounds_that_rounding_leaves():
    """In float32 0.1 + 0.8 - 0.8 is below 0.1, where the density is 0 and its score NaN."""
    positions = jnp.asarray(np.random.default_rng(0).uniform(-2, 3, 200_000), jnp.float32)
    edges = jnp.asarray([0.1 - 3e-8, 0.1 + 1e-8, 0.1, 0.9, 0.9 + 6e-8], jnp.float32)
    for values in (positions, edges):
        found = _reflect(values, (0.1, 0.9))
        assert jnp.all((found >= jnp.float32(0.1)) & (found <= jnp.float32(0.9)))


def test_the_score_is_right_in_every_coordinate(x64):
    """Mistake 3: finite differences of the tempered log-posterior, coordinate by coordinate and datum by datum."""
    prior = kaem.MixturePrior(num_latents=3, num_components=2, grid_size=6)
    model = kaem.Model(prior, kaem.MLP((5,)), kaem.Gaussian(0.4), (4,))
    params = model.init(jax.random.key(0))
    table = prior.tabulate(params["prior"])
    x = jax.random.normal(jax.random.key(1), (5, 4))
    z = jax.random.normal(jax.random.key(2), (2, 5, 3))
    temperatures = jnp.asarray([[0.3], [1.0]])

    @jax.jit
    def log_density(z):
        return prior.log_prob(params["prior"], z, table) + temperatures * model.log_likelihood(params, z, x, table)

    _, score = value_and_score(log_density, z)
    step = 1e-6
    for index in np.ndindex(z.shape):
        moved = jnp.zeros_like(z).at[index].set(step)
        difference = (log_density(z + moved) - log_density(z - moved)) / (2 * step)
        np.testing.assert_allclose(difference[index[:2]], score[index], rtol=1e-5, atol=1e-6)
        # Nobody else's density moves: chains and data do not meet.
        np.testing.assert_array_equal(difference.at[index[:2]].set(0), 0)


@pytest.mark.parametrize("kernel", [MALA(), PCNL(), ULA()], ids=str)
def test_chains_do_not_influence_each_other(kernel):
    log_density, _, _ = gaussian_target(3.0)
    start = jax.random.normal(jax.random.key(0), (3, 4, 2))
    run = functools.partial(
        kaem.langevin_posterior, jax.random.key(1), log_density, kernel=kernel, num_steps=4, step_size=0.2
    )
    changed = run(start.at[1, 2].set(5.0)).z
    same = np.all(np.asarray(changed == run(start).z), axis=-1)
    assert not same[1, 2]
    assert same.sum() == 11


@pytest.mark.slow
def test_mala_takes_blackjax_steps():
    """From one key, blackjax's kernel and ours propose, accept and end alike."""
    prior, params, table = wild("mixture")
    log_density = lambda z: prior.log_prob(params, z, table)  # noqa: E731
    start = prior.sample(jax.random.key(0), table, (2000,))
    keys = jax.random.split(jax.random.key(3), 2000)

    def ours(key, z):
        return MALA().step(key, MALA().init(z, log_density), log_density, 0.4)

    def theirs(key, z):
        return blackjax.mala.build_kernel()(key, blackjax.mala.init(z, log_density), log_density, 0.4)

    state, info = jax.jit(jax.vmap(ours))(keys, start)
    with jax.numpy_dtype_promotion("standard"):
        expected, expected_info = jax.jit(jax.vmap(theirs))(keys, start)
    np.testing.assert_allclose(info.acceptance, expected_info.acceptance_rate, rtol=1e-3, atol=1e-5)
    same = np.all(np.isclose(state.position, expected.position, rtol=1e-5, atol=1e-5), axis=-1)
    assert same.mean() > 0.998  # a uniform may fall between two roundings of one acceptance probability
    assert 0.2 < np.mean(expected_info.is_accepted) < 0.9
    np.testing.assert_allclose(state.log_density[same], expected.logdensity[same], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.score[same], expected.logdensity_grad[same], rtol=1e-3, atol=1e-4)


def test_impossible_requests_are_refused(refuses):
    flat = lambda z: jnp.zeros(z.shape[:-1])  # noqa: E731
    run = functools.partial(kaem.langevin_posterior, jax.random.key(0), flat, jnp.zeros((2, 1)))
    for options, parts in (
        ({"kernel": "nuts"}, ["kernel='nuts'", "mala, pcnl, ula"]),
        ({"kernel": 3}, ["kernel=3", "MALA()"]),
        ({"num_steps": 0}, ["num_steps=0", "at least 1"]),
        ({"kernel": "ula", "step_size": 0.1, "warmup_steps": 3}, ["ULA()", "step_size"]),
        ({"kernel": ULA()}, ["ULA()", "step_size"]),
        ({"kernel": "pcnl", "step_size": 2.0}, ["step_size=2.0", "below 2", "PCNL()"]),
    ):
        with refuses(ValueError, *parts):
            run(**{"num_steps": 1} | options)


@pytest.mark.slow
def test_defaults_adapt_and_warn_of_what_did_not_mix():
    """A newcomer gives no step size: MALA adapts. What stays in its half of the target is said in the result."""
    scale = jnp.asarray([0.01, 0.01])
    narrow = lambda z: -0.5 * jnp.sum((z / scale) ** 2, axis=-1)  # noqa: E731
    run = functools.partial(kaem.langevin_posterior, jax.random.key(0), narrow, jnp.full((2000, 2), 0.02))
    good = run(num_steps=300)
    np.testing.assert_allclose(np.std(good.z, axis=0), scale, rtol=4.5 / np.sqrt(4000))
    np.testing.assert_allclose(good.acceptance.mean(), TARGET_ACCEPTANCE, atol=0.05)
    assert np.mean(np.asarray(good.warning) == 0) > 0.95
    assert explain_warning(jnp.zeros(3, jnp.int32)) == []
    # Far too large a step: nothing moves. Far too small a one: the halves of each chain are elsewhere.
    stuck, slow = run(num_steps=50, step_size=10.0), run(num_steps=50, step_size=1e-9)
    assert np.all(np.asarray(stuck.warning) & DrawWarning.REJECTED)
    assert np.mean((np.asarray(slow.warning) & DrawWarning.R_HAT) > 0) > 0.5
    assert any("tenth of the proposals" in text for text in explain_warning(stuck.warning))
    assert any("R-hat" in text for text in explain_warning(slow.warning))
    assert np.all(np.asarray(run(num_steps=3, step_size=1e-4).warning) & DrawWarning.R_HAT)  # too short to say


def test_split_r_hat_is_blackjax_on_halves(rng):
    trace = rng.normal(size=(400, 3)).cumsum(axis=0) * [[1.0, 0.0, 1e-3]] + rng.normal(size=(400, 3))
    ours = split_r_hat(jnp.asarray(trace, jnp.float32))
    halves = jnp.asarray(trace, jnp.float32).reshape(2, 200, 3)
    with jax.numpy_dtype_promotion("standard"):
        theirs = blackjax.diagnostics.potential_scale_reduction(halves)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert ours[0] > 1.1
    assert ours[1] < 1.02
    assert np.isnan(split_r_hat(jnp.zeros((3, 2)))).all()
