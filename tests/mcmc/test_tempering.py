"""Tempered populations: exact weights of modes, exact acceptance, who is proposed, rungs for states, ladders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.mcmc import (
    MALA,
    ULA,
    DrawWarning,
    effective_sample_size,
    explain_warning,
    moves,
    power_ladder,
    rounds,
)
from kaem_jax.mcmc.ladder import adapted_ladder, communication_barrier
from kaem_jax.mcmc.rounds import next_heading
from tests.truth import assert_within

NUM_DATA = 2000


def log_prior(z):
    return -0.5 * jnp.sum(z**2, axis=-1)


def flat(z):
    return jnp.zeros(z.shape[:-1])


def run_of(log_prior, log_likelihood, z0, betas=None, seed=0, **options):
    run = functools.partial(kaem.mcmc.tempered_posterior, **options)
    return jax.jit(lambda key, z0: run(key, log_prior, log_likelihood, z0, betas))(jax.random.key(seed), z0)


@pytest.mark.sweep
@pytest.mark.parametrize("num", [5, 2, 1])
def test_moments_of_every_rung_and_coordinate(num):
    """Conjugate: precision 1 + beta / s^2, with another s and datum for every coordinate (mistakes 3, 4, 7, 12)."""
    s, x = np.array([0.3, 1.0, 2.0], np.float32), np.array([1.0, -2.0, 0.5], np.float32)
    betas, options = power_ladder(num, 2.0), {"num_rounds": 20, "steps_per_round": 2, "warmup_rounds": 30}

    def log_likelihood(z):
        return -0.5 * jnp.sum(((x - z) / s) ** 2, axis=-1)

    options["refresh"] = lambda key, shape: jax.random.normal(key, (*shape, 3))
    run = run_of(log_prior, log_likelihood, np.zeros((NUM_DATA, 3)), betas, seed=1, step_size=0.3, **options)
    s, x = s.astype(float), x.astype(float)
    precision = 1 + np.asarray(betas)[:, None] / s**2
    mean = np.asarray(betas)[:, None] * x / s**2 / precision
    z = np.asarray(run.z, np.float64)
    assert z.shape == (num, NUM_DATA, 3)
    assert_within(z.mean(axis=1), mean, 1 / np.sqrt(precision * NUM_DATA), 4.5)
    assert_within(z.var(axis=1) * precision, 1, np.sqrt(2 / NUM_DATA), 4.5)
    np.testing.assert_allclose(run.log_likelihood, log_likelihood(z), rtol=1e-4, atol=1e-4)
    is_exact = np.asarray(betas) == 0  # rungs with exact draws keep the first step size
    np.testing.assert_allclose(run.info.acceptance, np.where(is_exact, 1, 0.574), atol=0.1)
    np.testing.assert_array_equal(run.step_size == np.float32(0.3), is_exact)
    assert run.info.swap_acceptance.shape == (num - 1,)


def test_the_priors_rung_goes_where_the_likelihood_is_zero():
    """And a chain that starts there leaves it: 0 times -inf is no number, nor is 0 times the slope there."""

    def log_likelihood(z):
        return jnp.log(jnp.maximum(z[..., 0], 0))

    options = {"num_rounds": 20, "steps_per_round": 2, "step_size": 1.0}
    start = np.repeat([1.0, -1.0], 2000)[:, None]
    run = run_of(log_prior, log_likelihood, start, np.array([0.0, 0.5, 1.0]), **options)
    for half in np.asarray(run.z[0, :, 0]).reshape(2, 2000):
        assert stats.kstest(half, "norm").pvalue > 1e-3
    assert np.all(np.asarray(run.z[1:, :2000]) > 0)


def test_the_tempered_score_is_right_in_every_coordinate(x64, rng):
    """Mistake 3: with one key, moves at beta and at 0 differ by eta beta times the score of log p(x|z), which finite
    differences know for each coordinate of each chain. An accept step would hide a wrong score.
    """
    weights, eta = rng.normal(size=(3, 2)), 1e-3
    betas, z = np.array([[0.3] * 4, [1.0] * 4]), rng.normal(size=(2, 4, 3, 2))

    @jax.jit
    def log_likelihood(z):
        return jnp.sin(jnp.sum(z * weights, axis=(-2, -1))) - jnp.sum(z**3 * weights**2, axis=(-2, -1))

    def standard_normal(z):
        return -0.5 * jnp.sum(z**2, axis=(-2, -1))

    @jax.jit
    def moved(z, beta):
        chains, steps = moves.evaluate(z, standard_normal, log_likelihood), jnp.full((2, 4), eta)
        return moves.move(jax.random.key(0), chains, standard_normal, log_likelihood, beta, steps, ULA(), None)[0]

    gap = np.asarray(moved(z, betas).position) - np.asarray(moved(z, 0 * betas).position)
    score = gap / eta / betas[..., None, None]
    shifts = 1e-5 * np.eye(6).reshape(6, 1, 1, 3, 2)
    slope = np.subtract(log_likelihood(z + shifts), log_likelihood(z - shifts)) / 2e-5
    np.testing.assert_allclose(np.moveaxis(score.reshape(2, 4, 6), -1, 0), slope, atol=1e-6)


def test_acceptance_of_exchanges_is_exact_on_gaussians(rng):
    """Replicas drawn exactly from N(0, 1 / (1 + beta c)): the mean of min(1, ratio) by quadrature."""
    c, betas, num = 20.0, np.array([0.0, 0.1, 0.4, 1.0]), 100_000
    deviation = 1 / np.sqrt(1 + betas * c)
    z = rng.normal(size=(4, num)) * deviation[:, None]
    rung = np.broadcast_to(np.arange(4)[:, None], z.shape)
    new, probability = jax.jit(rounds.exchange)(jax.random.key(1), rung, -0.5 * c * z**2, betas, 0)
    widths = np.diff(betas) * c / 2
    exact = np.array([_mean_acceptance(widths[k], deviation[k], deviation[k + 1]) for k in range(3)])
    assert_within(np.mean(probability, axis=1), exact, np.std(probability, axis=1) / np.sqrt(num), 4.5)
    # Decisions are made datum by datum, as often as their probabilities say (mistake 5).
    swapped = np.mean(np.asarray(new[:3]) == np.arange(1, 4)[:, None], axis=1)
    assert_within(swapped[::2], exact[::2], np.sqrt(exact * (1 - exact) / num)[::2], 4.5)
    assert swapped[1] == 0


def _mean_acceptance(width, low, high):
    """E min(1, exp(-width (a^2 - b^2))) for a ~ N(0, high^2) colder and b ~ N(0, low^2) hotter, on a grid."""
    grid = np.linspace(-7, 7, 301)
    density = stats.norm.pdf(grid)
    density /= density.sum()
    log_ratio = width * ((high * grid[None, :]) ** 2 - (low * grid[:, None]) ** 2)
    return density @ np.minimum(1, np.exp(np.minimum(log_ratio, 0))) @ density


@pytest.mark.parametrize("swap", ["even_odd", "random", "none"])
def test_moving_rungs_is_moving_states(rng, swap):
    """In the order of rungs, an exchange of rungs is the exchange of two neighbours' states, for each datum alone."""
    log_likelihood = np.float32(rng.normal(size=(5, 2000)))
    rung = rng.permuted(np.broadcast_to(np.arange(5, dtype=np.int32)[:, None], (5, 2000)), axis=0)
    betas = np.linspace(0, 1, 5) ** 2
    new, _ = jax.jit(rounds.exchange, static_argnums=5)(jax.random.key(2), rung, log_likelihood, betas, 1, swap)
    before, after = (np.take_along_axis(log_likelihood, np.argsort(r, axis=0), axis=0) for r in (rung, new))
    moved = before != after
    pairs = {tuple(np.flatnonzero(column)) for column in moved.T}
    even, odd = {(), (0, 1), (2, 3), (0, 1, 2, 3)}, {(), (1, 2), (3, 4), (1, 2, 3, 4)}
    assert pairs == {"even_odd": odd, "random": even | odd, "none": {()}}[swap]
    for b, column in enumerate(moved.T):
        for k in np.flatnonzero(column)[::2]:
            assert (before[k, b], before[k + 1, b]) == (after[k + 1, b], after[k, b])
    if swap == "even_odd":
        assert np.all(moved[1][before[1] > before[2]])  # uphill ones always happen


def test_replicas_without_any_likelihood():
    """What is no number is not exchanged, and what is impossible goes to the hotter rung, never the other way."""
    inf = np.inf
    log_likelihood = np.array([[np.nan, -inf, inf, 0.0, -inf], [0.0, -inf, inf, -inf, 0.0]])
    rung = np.array([[0] * 5, [1] * 5])
    new, probability = jax.jit(rounds.exchange)(jax.random.key(0), rung, log_likelihood, np.array([0.0, 1.0]), 0)
    np.testing.assert_array_equal(probability, [[0, 0, 0, 1, 0]])
    np.testing.assert_array_equal(new, [[0, 0, 0, 1, 0], [1, 1, 1, 0, 1]])

    # A chain that starts where the density is 0 takes the first move that leaves it.
    @jax.jit
    def acceptance(gain):
        zero = jnp.zeros((3, 2))
        return MALA().acceptance(MALA().propose(jax.random.key(1), zero, zero, jnp.full(3, 0.1)), zero, gain)

    np.testing.assert_array_equal(acceptance(np.array([inf, -inf, np.nan])), [1, 0, 0])


def test_the_adaptive_ladder_equalises_rejections_and_never_collapses():
    """On centred Gaussians, whose acceptance is known; then 2,000 updates with nothing rejected (mistake 18)."""
    np.testing.assert_allclose(power_ladder(5, 2.0), [0, 1 / 16, 1 / 4, 9 / 16, 1], rtol=1e-6)
    np.testing.assert_array_equal(power_ladder(1), [1.0])
    np.testing.assert_allclose(communication_barrier(np.float32([0.7, 0.5])), [0, 0.3, 0.8], rtol=1e-6)
    c, betas, adapted = 300.0, np.linspace(0, 1, 6), jax.jit(adapted_ladder)

    def acceptance(betas):
        deviation = 1 / np.sqrt(1 + np.asarray(betas, float) * c)
        widths = np.diff(np.asarray(betas, float)) * c / 2
        return np.array([_mean_acceptance(widths[k], deviation[k], deviation[k + 1]) for k in range(5)])

    assert np.ptp(acceptance(betas)) > 0.3
    for _ in range(25):
        betas = adapted(betas, acceptance(betas), 0.5)
    assert np.ptp(acceptance(betas)) < 0.02
    many = betas
    for _ in range(2000):
        many = adapted(many, np.ones(5), 0.5)
    assert np.all(np.diff(np.asarray(many)) > 1e-3)
    for ladder in (betas, many):
        assert (float(ladder[0]), float(ladder[-1])) == (0.0, 1.0)
    # Rejections 0.1 and 0.5: half of the barrier of 0.6 lies at 0.5 + 0.2, to which damping is the share of the way.
    for damping, middle in ((0.0, 0.5), (0.25, 0.55), (1.0, 0.7)):
        found = adapted(np.array([0.0, 0.5, 1.0]), np.array([0.9, 0.5]), damping)
        np.testing.assert_allclose(found, [0, middle, 1], rtol=1e-5)


def test_chains_that_stand_still():
    """Draws that are all alike count each, though their mean may miss them by a rounding error; R-hat says nothing of
    them, and of chains that stand apart that they disagree for ever."""
    constants = np.float32(np.broadcast_to([-1234.567, 1e5 / 3, 0.0, -0.1], (1000, 4)))
    assert jax.jit(effective_sample_size)(constants).tolist() == [1000] * 4
    r_hat = jax.jit(kaem.mcmc.r_hat)(np.float32(np.broadcast_to([[1.0, 1.0], [2.0, 1.0]], (10, 2, 2))))
    np.testing.assert_array_equal(r_hat, [np.inf, np.nan])


def test_refusals(refuses):
    def call(**options):
        arguments = {"num_rounds": 2, "step_size": 0.1, "betas": power_ladder(3), "z0": np.zeros((2, 1))} | options
        return kaem.mcmc.tempered_posterior(jax.random.key(0), log_prior, flat, **arguments)

    for options, parts in (
        ({"swap": "odd"}, ["swap='odd'", "even_odd, none, random"]),
        ({"num_rounds": 0}, ["num_rounds=0", "at least 1"]),
        ({"betas": np.ones((2, 2))}, ["betas=[[1.0, 1.0]", "[T]"]),
        ({"betas": [1.0, 0.5, 0.0]}, ["betas=[1.0, 0.5, 0.0]", "increase"]),
        ({"betas": [0.0, 0.5]}, ["betas=[0.0, 0.5]", "to 1"]),
        ({"step_size": -0.1}, ["step_size=-0.1", "above 0"]),
        ({"bounds": (1.0, 0.0)}, ["bounds=(1.0, 0.0)", "low < high"]),
        ({"warmup_rounds": -1}, ["warmup_rounds=-1"]),
        ({"z0": np.zeros((2, 1), int)}, ["z0 has dtype int32", "floats"]),
        ({"z0": np.zeros((2, 5, 1))}, ["z0 has shape (2, 5, 1)", "T=3"]),
        ({"warmup_rounds": 3, "kernel": "ula"}, ["warmup_rounds=3", "ULA()"]),
        ({"step_size": None, "kernel": "ula"}, ["ULA()", "step_size"]),
    ):
        with refuses(ValueError, *parts):
            call(**options)


def test_a_round_trip_begins_at_the_first_rung():
    heading, seen = np.zeros(4, np.int32), []
    for rung in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 1, 3, 2]):
        heading = next_heading(heading, np.array(rung))
        seen.append(heading.tolist())
    assert seen == [[-1, 0, 0, 0], [1, 0, 0, -1], [1, 0, -1, -1], [-1, 0, 1, -1]]


def test_a_population_that_goes_on_keeps_alternating_pairs():
    """Two rounds a call: the number of the first one decides the parity (mistake 6). Nothing is rejected, so rungs show
    which pairs were proposed. All were on the last rung before: a trip ends where one arrives at the first."""
    start, betas = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 4, 1)), np.linspace(0, 1, 3)
    options = {"kernel": ULA(), "num_rounds": 2, "step_size": 1e-12, "heading": np.ones((3, 4), np.int32)}
    run = functools.partial(kaem.mcmc.tempered_posterior, jax.random.key(0), flat, flat, start, betas, **options)
    run = jax.jit(lambda first, run=run: run(first_round=first))
    for first, order, heading in ((6, [1, 2, 0], [-1, 1, 1]), (7, [2, 0, 1], [-1, -1, 1])):
        found = run(first)
        np.testing.assert_allclose(found.z[:, 0, 0], order, atol=1e-4)
        assert found.info.round_trips.tolist() == [1] * 4
        assert found.heading[:, 0].tolist() == heading  # by rung, not by replica


def test_populations_stay_within_bounds():
    """On a flat density between 0 and 2 with steps as wide as that, whose moves beyond the bounds are rejected."""
    options = {"num_rounds": 10, "step_size": 2.0, "bounds": (0.0, 2.0)}
    run = run_of(flat, flat, np.ones((2000, 1)), np.linspace(0, 1, 2), **options)
    for rung in np.asarray(run.z)[..., 0]:
        assert rung.min() >= 0
        assert rung.max() <= 2
        assert stats.kstest(rung / 2, "uniform").pvalue > 1e-3


def test_warnings_are_of_the_posteriors_rung_and_of_each_datum():
    """The prior's rung moves, the posterior's does where its target is not far too narrow for the step."""
    width = np.float32([1.0, 1e-6, 1.0])

    def sharp(z):
        return -0.5 * jnp.square(z[..., 0] / width)

    options = {"num_rounds": 300, "step_size": 0.5, "swap": "none"}
    run = run_of(log_prior, sharp, np.full((3, 1), 0.3), np.linspace(0, 1, 2), **options)
    assert float(run.info.acceptance[0]) > 0.5
    assert (np.asarray(run.warning) & DrawWarning.REJECTED).tolist() == [0, DrawWarning.REJECTED, 0]
    assert np.isnan(run.info.r_hat).tolist() == [False, True, False]
    assert np.asarray(run.warning)[1] & DrawWarning.R_HAT
    assert np.all(np.asarray(run.warning) & DrawWarning.NO_ROUND_TRIPS)
    assert len(explain_warning(jnp.asarray([DrawWarning.R_HAT, DrawWarning.NO_ROUND_TRIPS, 0]))) == 2


def test_every_rung_keeps_its_own_step_size_and_trace():
    """After an exchange that always happens, replica 0 moves on the rung with the large step. What is told of a round
    is of the rungs on which replicas moved, before they exchanged."""

    def tiny(z):
        return 1e-9 * z[..., 0]

    @jax.jit
    def after(state, key):
        steps = jnp.asarray([1e-12, 1.0])
        return rounds.step_round(key, state, flat, tiny, power_ladder(2), steps, 0, kernel=ULA())

    state = jax.jit(lambda z: rounds.init(z, flat, tiny, 2))(np.broadcast_to([[[1.0]], [[2.0]]], (2, 3, 1)))
    for index, (still, moving) in enumerate(((0, 1), (1, 0))):
        new, info = after(state, jax.random.key(index))
        moved = np.abs(np.subtract(new.replicas.position, state.replicas.position))
        assert moved[still].max() < 1e-4
        assert moved[moving].min() > 1e-3
        np.testing.assert_array_equal(info.log_likelihood, np.asarray(new.replicas.log_likelihood)[[still, moving]])
        assert new.rung.tolist() == [[moving] * 3, [still] * 3]
        state = new
