"""Estimates of log p(x) against closed forms and quadrature: within their own errors, bounds on their sides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.evidence import AIS, annealed_evidence, bidirectional_bounds
from kaem_jax.inference.evidence.annealed_evidence import _pilot, annealed_log_weights, path_log_weights
from kaem_jax.inference.evidence.estimate import evidence_of_weights, is_bound
from kaem_jax.inference.evidence.importance_evidence import importance_evidence, proposal_log_weights
from kaem_jax.inference.evidence.tempered_evidence import (
    _effective_rounds,
    integrate_log_likelihood,
    tempered_evidence,
)
from kaem_jax.inference.proposals import PriorProposal
from kaem_jax.inference.proposals.path import Path, evidence_path
from kaem_jax.inference.samplers import TemperedDraws
from kaem_jax.mcmc import MALA, PCNL, effective_sample_size, power_ladder
from kaem_jax.training.loss import posterior_loss
from tests.linear_gaussian import linear_gaussian, two_modes
from tests.truth import assert_within

NUM_REPEATS = 16


@pytest.fixture(scope="module")
def gaussian():
    """Model, parameters, simulated data, their exact log p(x)."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)
    z = model.prior.sample(jax.random.key(1), model.prior.tabulate(params["prior"]), (6,))
    x = model.simulate(jax.random.key(2), params, z)
    return model, params, x, exact


@pytest.fixture(scope="module")
def bimodal():
    return two_modes()


def repeats(setting, method, **options):
    model, params, x, _ = setting
    keys = jax.random.split(jax.random.key(5), NUM_REPEATS)
    return jax.vmap(lambda key: kaem.log_evidence(key, model, params, x, method, **options))(keys)


SETTINGS = {
    "importance": {"num_samples": 100_000},
    "ais": {"num_chains": 32, "num_temperatures": 400},
    "steppingstone": {"num_rounds": 200, "num_temperatures": 20},
}


def within_errors(deviation, error):
    """Root mean square of 16 standard scores: a chi variable with 1e-4 quantiles 0.5 and 1.6, widened for skewness."""
    score = np.sqrt(np.mean((deviation / error) ** 2, axis=0))
    return np.all((score > 0.45) & (score < 1.7))


@pytest.mark.sweep
@pytest.mark.parametrize("case", ["gaussian", "bimodal"])
@pytest.mark.parametrize("method", SETTINGS)
def test_estimates_are_within_their_own_errors(request, method, case):
    setting = request.getfixturevalue(case)
    truth = setting[3](np.asarray(setting[2], np.float64))[1] if case == "gaussian" else setting[3]
    estimate = repeats(setting, method, **SETTINGS[method])
    deviation = np.asarray(estimate.value) - truth
    assert np.all(np.asarray(estimate.ess) >= 1)
    assert within_errors(deviation, np.asarray(estimate.standard_error))
    assert within_errors(deviation.mean(axis=1), np.asarray(estimate.mean_standard_error))


@pytest.mark.parametrize("points", ["random", "sobol"])
def test_no_error_is_small_by_luck(gaussian, points):
    """Draws that would fit into one chunk come in more, so that their error differs little between keys.

    From two halves alone every tenth error would be below a fifth of the median.
    """
    estimate = repeats(gaussian, "importance", num_samples=8_192, chunk_size=20_000, points=points)
    for error in (np.asarray(estimate.standard_error), np.asarray(estimate.mean_standard_error)):
        assert np.all(error > 0.2 * np.median(error, axis=0))
    num_chunks = {"random": 32, "sobol": 8}[points]
    spread = np.std(np.log(np.asarray(estimate.standard_error)), axis=0)
    assert np.median(spread) < 2 / np.sqrt(num_chunks)


def test_fits_that_found_different_modes_differ_by_their_error():
    """Weights of 1 and of 3: nothing but the two means tells that the estimate may be off by a half."""
    log_weights = jnp.log(jnp.broadcast_to(jnp.asarray([1.0, 3.0])[:, None, None], (2, 500, 4)))
    found = evidence_of_weights(log_weights)
    np.testing.assert_allclose(found.value, np.log(2), rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, 0.5, rtol=1e-5)
    np.testing.assert_allclose(found.mean_standard_error, 0.5 / 2, rtol=1e-5)


@pytest.mark.slow
def test_a_chain_that_saw_one_value_has_seen_one_draw():
    """A population whose posterior end never moves knows nothing of its own error."""

    def flat(z):
        return jnp.zeros(z.shape[:-1])

    path = Path(flat, flat, lambda key, num: jnp.zeros((num, 3, 2)), lambda z: z, None, 1.0)
    options = {"num_temperatures": 3, "num_rounds": 20, "steps_per_round": 1, "kernel": MALA(), "refreshes": False}
    found = tempered_evidence(jax.random.key(0), path, "steppingstone", **options)
    np.testing.assert_array_equal(found.ess, 1)
    assert np.all(np.asarray(found.is_bound))


@pytest.mark.parametrize("kernel", [MALA(), PCNL()])
def test_the_pilot_asks_for_no_step_beyond_that_of_its_kernel(kernel):
    """On a flat density all moves are accepted, and step sizes grow to their bound."""

    def flat(z):
        return jnp.zeros(z.shape[:-1])

    path = Path(flat, flat, lambda key, num: jnp.zeros((num, 3, 2)), lambda z: z, None, 1.0)
    found = np.asarray(annealed_evidence._pilot(jax.random.key(0), path, power_ladder(30), kernel))
    assert found[0] < 1
    np.testing.assert_allclose(found.max(), 1.9, rtol=1e-5)


def test_integration_rules_on_exact_draws():
    """z ~ N(0, 1), l = -c (z - x)^2 / 2, independent exact draws of every rung: errors, sides of bounds, bias."""
    c, x = 25.0, np.array([0.0, 1.5, 3.0])
    truth = -0.5 * np.log1p(c) - 0.5 * x**2 * c / (1 + c)
    rng = np.random.default_rng(0)

    def estimate(rule, num):
        betas = np.asarray(power_ladder(num, 3.0), np.float64)
        precision = (1 + betas * c)[:, None]
        z = betas[:, None] * c * x / precision + rng.normal(size=(NUM_REPEATS, 400, num, 3)) / np.sqrt(precision)
        trace = jnp.asarray(-0.5 * c * (z - x) ** 2, jnp.float32)
        rounds = jax.vmap(lambda t: integrate_log_likelihood(t, jnp.asarray(betas, jnp.float32), rule))(trace)
        return np.asarray(rounds[0]) - truth, np.asarray(rounds[1])

    for rule, num in (("steppingstone", 10), ("ti", 20), ("ti_trapezoid", 80)):
        assert within_errors(*estimate(rule, num)), rule
    for rule, side in (("ti_left", -1), ("ti_right", 1)):
        deviation, error = estimate(rule, 10)
        assert np.all(side * deviation.mean(axis=0) > 5 * error.mean(axis=0))
    # The correction removes most of the trapezoid's bias on a coarse ladder.
    coarse, corrected = (np.abs(estimate(rule, 8)[0].mean(axis=0)) for rule in ("ti_trapezoid", "ti"))
    assert np.all(corrected < 0.5 * coarse)


@pytest.mark.parametrize("rule", ["ti", "ti_left", "ti_right", "ti_trapezoid", "steppingstone"])
def test_intervals_cover_the_ladder_once(rule):
    """Of a constant log-likelihood every rule gives just that: no interval is missing, none is there twice (12)."""
    value, error = integrate_log_likelihood(jnp.full((40, 6, 3), -7.0), jnp.linspace(0, 1, 6), rule)
    np.testing.assert_allclose(value, -7, rtol=1e-6)
    np.testing.assert_allclose(error, 0, atol=1e-5)


@pytest.mark.slow
def test_thermodynamic_integration_runs_a_population(gaussian):
    model, params, x, exact = gaussian
    estimate = kaem.log_evidence(jax.random.key(5), model, params, x, "ti", num_rounds=200, num_temperatures=20)
    assert_within(estimate.value, exact(np.asarray(x, np.float64))[1], estimate.standard_error, 4.5)


@pytest.mark.slow
def test_bidirectional_bounds_enclose_the_truth(gaussian):
    model, params, _, exact = gaussian
    gaps = []
    for num_temperatures in (10, 100):
        bounds = bidirectional_bounds(
            jax.random.key(6), model, params, 100, num_chains=4, num_temperatures=num_temperatures
        )
        truth = exact(np.asarray(bounds.x, np.float64))[1]
        below, above = truth - np.asarray(bounds.lower), np.asarray(bounds.upper) - truth
        for gap in (below, above):
            assert gap.mean() > -3 * gap.std() / np.sqrt(100)
        gaps.append(below.mean() + above.mean())
    assert gaps[1] < 0.5 * gaps[0]  # more temperatures tighten both


def test_bounds_are_means_of_weights_in_both_directions(gaussian, rng, monkeypatch):
    """The lower one is log mean exp(w), the upper one -log mean exp(-w): means of w or of exp(w) would be looser."""
    weights = {reverse: rng.normal(size=(4, 7)).astype(np.float32) for reverse in (False, True)}
    monkeypatch.setattr(
        annealed_evidence, "annealed_log_weights", lambda *_, reverse=False, **__: jnp.asarray(weights[reverse])
    )
    monkeypatch.setattr(annealed_evidence, "_pilot", lambda *_: None)
    bounds = bidirectional_bounds(jax.random.key(6), *gaussian[:2], 7, num_chains=4, num_temperatures=3)
    np.testing.assert_allclose(bounds.lower, special.logsumexp(weights[False], axis=0) - np.log(4), rtol=1e-4)
    np.testing.assert_allclose(bounds.upper, np.log(4) - special.logsumexp(-weights[True], axis=0), rtol=1e-4)


def test_weights_in_reverse_average_to_one_over_p_x():
    """From exact posterior draws E exp(-w) = 1 / p(x), not only a bound: z ~ N(0, 1), l = -c (z - x)^2 / 2."""
    c, x, num = 2.0, jnp.asarray([0.5, 1.0]), 40_000
    log_evidence = -0.5 * np.log1p(c) - 0.5 * np.asarray(x, np.float64) ** 2 * c / (1 + c)
    start = c * x / (1 + c) + (1 + c) ** -0.5 * jax.random.normal(jax.random.key(0), (num, 2))
    weights = annealed_log_weights(
        jax.random.key(1),
        lambda z: -0.5 * jnp.sum(z**2, axis=-1),
        lambda z: -0.5 * c * (z[..., 0] - x) ** 2,
        start[..., None],
        jnp.asarray([0, 0.05, 0.15, 0.4, 0.7, 1]),
        jnp.full(5, 0.4),
        reverse=True,
    )
    ratio = np.exp(log_evidence - np.asarray(weights, np.float64))
    error = ratio.std(axis=0) / np.sqrt(num)
    assert_within(ratio.mean(axis=0), 1, error, 4.5)
    assert np.all(error < 0.02)


@pytest.mark.parametrize("rung", [1, 2])
def test_the_effective_size_is_that_of_the_rung_with_the_fewest_rounds(rung, rng):
    """The draws of one rung hang together; those of the others are independent."""
    trace = rng.normal(size=(400, 3, 5))
    for i in range(1, 400):
        trace[i, rung] += 0.5 * trace[i - 1, rung]
    trace[:, 1] *= 3
    trace, betas = jnp.asarray(trace, jnp.float32), power_ladder(3, 1.0)
    found = {rule: _effective_rounds(trace, betas, rule) for rule in ("ti", "ti_left", "ti_right", "steppingstone")}
    of_rung = np.asarray(effective_sample_size(trace[:, rung]))
    for rule in ("ti", "ti_left", "ti_right"):
        np.testing.assert_allclose(found[rule], of_rung, rtol=1e-5)
    assert np.median(of_rung) < 200  # of 400, by an autocorrelation of 0.5
    # Weights of the middle rung differ, by half its log-likelihood, and on rung 1 they hang together, too.
    weights = np.exp(0.5 * np.asarray(trace[:, 1], np.float64))
    share = weights.sum(axis=0) ** 2 / (400 * (weights**2).sum(axis=0))
    of_weights = share * np.asarray(effective_sample_size(jnp.asarray(weights, jnp.float32)))
    assert np.all(share < 0.5)
    np.testing.assert_allclose(found["steppingstone"], np.minimum(of_weights, of_rung), rtol=1e-3)
    still = trace.at[:, 0].set(-1.5)  # a rung that stood still has seen one point
    np.testing.assert_array_equal(_effective_rounds(still, betas, "steppingstone"), 1)


def test_log_evidence_is_its_method_with_the_options_that_are_given(gaussian):
    """By direct calls with its keys; none of the options is a default."""
    model, params, x, _ = gaussian
    key, kernel = jax.random.key(3), PCNL()
    table = model.prior.tabulate(params["prior"])
    path = evidence_path(model, params, x, None, table)
    (only,) = jax.random.split(key, 1)
    ladder = {"num_temperatures": 5, "kernel": kernel}
    points = {"points": "sobol", "num_samples": 64, "chunk_size": 16}
    rounds = ladder | {"steps_per_round": 3}
    weights = path_log_weights(jax.random.split(only)[1], path, num_chains=24, **ladder)
    for method, options, expected in (
        ("importance", points, importance_evidence(key, model, params, x, table, **points)),
        ("ais", ladder | {"num_chains": 24}, evidence_of_weights(weights[None])),
        # 39 rounds are cut into 20 batches of equal size, and so are 40.
        *(
            (rule, rounds | {"num_rounds": 39}, tempered_evidence(
                jax.random.split(key)[1], path, rule, num_rounds=40, refreshes=True, **rounds
            ))
            for rule in ("ti", "ti_left", "ti_right")
        ),
    ):  # fmt: skip
        found = kaem.log_evidence(key, model, params, x, method, **options)
        for name in ("value", "standard_error", "ess"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-3, err_msg=method)
        np.testing.assert_array_equal(found.is_bound, expected.is_bound)
        assert np.all(found.is_bound) or method in (
            "importance",
            "ais",
        )  # of 40 rounds no two in a batch are independent


def test_both_ways_of_a_bound_take_the_kernel_that_is_given(gaussian):
    model, params, _, _ = gaussian
    bounds = functools.partial(bidirectional_bounds, jax.random.key(0), model, params, 3, num_chains=2)
    found, same, other = (bounds(num_temperatures=5, **given) for given in ({}, {"kernel": MALA()}, {"kernel": PCNL()}))
    jax.tree.map(np.testing.assert_array_equal, found, same)
    np.testing.assert_array_equal(found.x, other.x)
    assert np.all((found.lower != other.lower) & (found.upper != other.upper))


@pytest.mark.slow
@pytest.mark.parametrize("num_temperatures", [2, 20])
def test_rungs_too_far_apart_leave_a_bound(num_temperatures):
    """Of two rungs the lower one is the prior, whose draws never reach posteriors of a sixtieth of its width."""
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=2, size=40, sigma=0.1)
    x = model.simulate(jax.random.key(1), params, jax.random.normal(jax.random.key(0), (4, 2)))
    truth = exact(np.asarray(x, np.float64))[1]
    options = {"num_temperatures": num_temperatures, "num_rounds": 40 * num_temperatures, "steps_per_round": 3}
    found = kaem.log_evidence(jax.random.key(2), model, params, x, "steppingstone", **options)
    if num_temperatures == 2:
        assert np.any(truth - found.value > 5 * found.standard_error)
        assert np.all(found.is_bound)
    else:
        assert_within(found.value, truth, found.standard_error, 5)
        assert not np.any(found.is_bound)


def test_the_correction_of_thermodynamic_integration_does_not_cancel():
    """Log-likelihoods of large images are tens of thousands of nats, whose squares have no digits left for a variance.

    Integers and 0.5 are exact in float32: a shift of all adds itself, and nothing else.
    """
    small = jnp.asarray(np.random.default_rng(0).integers(-20, 20, (200, 5, 2)) / 2, jnp.float32)
    betas = power_ladder(5)
    value, _ = integrate_log_likelihood(small, betas, "ti")
    shifted, _ = integrate_log_likelihood(small - 20_000, betas, "ti")
    np.testing.assert_allclose(shifted + 20_000, value, atol=0.02)


def test_what_counts_as_a_bound():
    assert is_bound(jnp.asarray([19.0, 21.0, jnp.nan]), 100).tolist() == [True, False, True]
    assert is_bound(jnp.asarray([49.0, 51.0]), 1000).tolist() == [True, False]


def test_a_datum_that_is_no_number_slows_no_chain_down():
    """The pilot's step sizes are as without it."""

    def path(size):
        scale = jnp.ones(size).at[1:].set(jnp.nan)
        density = lambda z: -0.5 * jnp.square(z[..., 0]) * scale  # noqa: E731
        return Path(density, density, lambda key, num: jnp.full((num, size, 1), 0.3), None, None, 1.0)

    steps = [_pilot(jax.random.key(0), path(size), power_ladder(30, 1.0), MALA()) for size in (1, 4)]
    assert float(steps[0][-1]) > 0.3
    assert abs(np.log(steps[1][-1] / steps[0][-1])) < 1.5


def test_refusals(refuses, gaussian):
    model, params, x, _ = gaussian
    with refuses(ValueError, "x holds no data"):
        kaem.log_evidence(jax.random.key(0), model, params, x[:0])
    for method, options, parts in (
        ("ais", {"kernel": "ula"}, ["kernel=ULA()", "MALA()"]),
        ("ais", {"num_temperatures": 1}, ["num_temperatures=1", "at least 2"]),
        ("ti", {"num_rounds": 10}, ["num_rounds=10 must be at least 20"]),
        ("magic", {}, ["method='magic'", "steppingstone"]),
    ):
        with refuses(ValueError, *parts):
            kaem.log_evidence(jax.random.key(0), model, params, x, method, **options)


def test_one_step_of_ais_is_importance_sampling(gaussian):
    """From beta 0 to 1 at once, weights are the likelihoods of the starting points."""
    model, params, x, _ = gaussian
    z = jax.random.normal(jax.random.key(7), (3, 6, 3))

    def log_likelihood(z):
        return model.log_likelihood(params, z, x)

    weights = annealed_log_weights(
        jax.random.key(8), lambda z: -0.5 * jnp.sum(z**2, axis=-1), log_likelihood, z, power_ladder(2), jnp.ones(1)
    )
    np.testing.assert_allclose(weights, log_likelihood(z), rtol=1e-6)


@pytest.mark.slow
def test_batches_are_all_data_once(gaussian):
    """Six data in batches of four: the filled-up batch must not count twice."""
    model, params, x, exact = gaussian
    found, _ = AIS(num_chains=32, num_temperatures=200, batch_size=4)(jax.random.key(9), model, params, x)
    assert_within(np.mean(found.value), exact(np.asarray(x, np.float64))[1].mean(), found.mean_standard_error, 4)
    assert found.mean_standard_error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_the_papers_detached_sums_are_biased(x64, exponent):
    """Toy of docs/method.md, section 9: z ~ N(0, 1), x | z ~ N(w z, s^2), w = 1.5, s = 0.5, x = 2. Truth 0.360."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=0.5)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)
    params["decoder"] = {"weight": jnp.asarray([[1.5]]), "bias": jnp.zeros(1)}
    betas = np.asarray(power_ladder(21, exponent))
    precision = 1 + betas * 1.5**2 / 0.5**2
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    z = (betas * 1.5 * 2 / 0.5**2 / precision)[:, None] + quantiles / np.sqrt(precision)[:, None]
    rungs = jnp.asarray(z[:, :, None, None])  # [T, C, 1, 1]
    draws = TemperedDraws(rungs[-1], {}, rungs, jnp.asarray(betas), jnp.ones(21), jnp.ones(20))

    def derivative(objective):
        def loss(weight):
            decoder = params["decoder"] | {"weight": weight}
            new = params | {"decoder": decoder}
            return posterior_loss(jax.random.key(0), model, new, jnp.asarray([[2.0]]), draws, objective=objective)[0]

        return -float(jax.grad(loss)(params["decoder"]["weight"]).squeeze())

    # Width of the ladder times E_beta[z (x - w z)] / s^2, by the moments of the tempered posteriors.
    mean = betas * 1.5 * 2 / 0.5**2 / precision
    expected = (2 * mean - 1.5 * (mean**2 + 1 / precision)) / 0.5**2
    trapezoid = np.trapezoid(expected, betas)
    assert {0.5: -0.283, 2.0: 0.122}[exponent] == pytest.approx(trapezoid, abs=5e-4)
    assert derivative("posterior") == pytest.approx(0.360, abs=1e-3)
    assert derivative("thermodynamic") == pytest.approx(trapezoid, abs=2e-3)
    # exp(Delta l) averages over the draws of rung k, so the sum over k is that of the bridges' means.
    widths = np.diff(betas)
    log_likelihood = -0.5 * (2 - 1.5 * z) ** 2 / 0.5**2
    weights = np.exp(widths[:, None] * log_likelihood[:-1])
    weights /= weights.sum(axis=1, keepdims=True)
    bridges = np.sum(widths[:, None] * weights * z[:-1] * (2 - 1.5 * z[:-1]) / 0.5**2)
    assert derivative("steppingstone") == pytest.approx(bridges, abs=1e-6)


def test_annealing_by_default_can_be_an_estimate():
    """Where x does not depend on z all weights are equal: nothing could be better, and it is no bound."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=2, sigma=0.5)
    params["decoder"]["weight"] = jnp.zeros((1, 2))
    found = kaem.log_evidence(jax.random.key(0), model, params, jnp.zeros((1, 2)), "ais", num_temperatures=3)
    assert not found.is_bound[0]


@pytest.mark.parametrize("options", [{"num_samples": 8}, {"method": "ais", "num_temperatures": 3, "num_chains": 2}])
def test_evidence_is_not_differentiated(gaussian, options):
    """A gradient through what has none, such as accept steps and the choice of a cluster, would be a wrong one."""
    model, params, x, _ = gaussian

    def total(params, x):
        return jnp.sum(kaem.log_evidence(jax.random.key(0), model, params, x, **options).value)

    slopes = jax.grad(total, argnums=(0, 1))(params, x[:2])
    jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0), slopes)


def test_each_chunk_has_proposals_of_its_own():
    model, params, _ = linear_gaussian(np.random.default_rng(0), 2, 3, 0.5)
    x = jnp.zeros((4, 3))
    table = model.prior.tabulate(params["prior"])
    fitted = PriorProposal().fit(jax.random.key(0), model, params, x, table)
    found = proposal_log_weights(jax.random.key(1), model, params, x, fitted, table, num_samples=8, chunk_size=8)
    assert found.shape == (8, 4)
    assert len(np.unique(np.asarray(found)[:, 0])) == 8
