"""Laplace proposals: exact on linear-Gaussian models, normalised, complete on two modes, honest about their errors."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.inference.evidence import AIS, ImportanceEstimator, bidirectional_bounds
from kaem_jax.inference.proposals import Laplace, PriorProposal
from kaem_jax.inference.proposals.laplace import _is_duplicate
from kaem_jax.likelihoods import Termwise
from tests.builders import make_model, make_prior
from tests.linear_gaussian import Fixed, linear_gaussian, two_modes
from tests.prior_draws import assert_is_evidence
from tests.truth import assert_within

EXACT = Laplace(num_modes=2, num_draws=50, degrees=1e6, widening=1.0, prior_share=0.0)


@pytest.fixture(scope="module")
def gaussian():
    model, params, exact = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)
    z = model.prior.sample(jax.random.key(1), model.prior.tabulate(params["prior"]), (10,))
    x = model.simulate(jax.random.key(2), params, z)
    return model, params, x, exact(np.asarray(x, np.float64))


@pytest.fixture(scope="module")
def bimodal():
    return two_modes()


@pytest.mark.parametrize("method", ["importance", "ais"])
def test_one_mode_gives_bounds_and_several_give_estimates(gaussian, method):
    """No weight tells of the modes that are missed, however many effective draws there are."""
    model, params, x, _ = gaussian
    options = {"num_samples": 200, "num_chains": 80, "num_temperatures": 4}
    for num_modes in (1, 2):
        proposal = Laplace(num_modes=num_modes, num_draws=50, num_steps=4)
        found = kaem.log_evidence(jax.random.key(3), model, params, x[:2], method, proposal=proposal, **options)
        assert np.all(found.ess > 25)
        assert np.all(found.is_bound == (num_modes == 1))


@pytest.mark.slow
def test_sixteen_proposals_give_the_exact_evidence_of_a_linear_gaussian_model(gaussian):
    """The posterior is the proposal itself, so that all weights are equal."""
    model, params, x, (mean, log_evidence) = gaussian
    estimate = kaem.log_evidence(jax.random.key(3), model, params, x, num_samples=16, proposal=EXACT)
    np.testing.assert_allclose(estimate.value, log_evidence, atol=1e-4)
    np.testing.assert_allclose(estimate.ess, 16, rtol=1e-4)
    annealed = kaem.log_evidence(
        jax.random.key(3), model, params, x, "ais", num_chains=16, num_temperatures=5, proposal=EXACT
    )
    np.testing.assert_allclose(annealed.value, log_evidence, atol=1e-4)
    fitted = EXACT.fit(jax.random.key(4), model, params, x, model.prior.tabulate(params["prior"]))
    np.testing.assert_allclose(fitted.modes[jnp.argmax(fitted.log_shares, axis=0), jnp.arange(10)], mean, atol=1e-4)
    assert np.all(np.sum(np.isfinite(np.asarray(fitted.log_shares)), axis=0) == 1)  # the two starts end at one mode
    weight = np.asarray(params["decoder"]["weight"], np.float64)
    precision = np.eye(3) + weight @ weight.T / 0.3**2
    factor = np.asarray(fitted.factors[0], np.float64)
    np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), np.broadcast_to(precision, (10, 3, 3)), rtol=1e-4)


@pytest.mark.slow
def test_the_defence_is_in_the_draws_and_in_their_density(gaussian):
    """By exact weights: under q = 0.7 t + 0.3 prior, the means of t / q and of prior / q are 1."""
    model, params, x, _ = gaussian
    proposal = Laplace(num_modes=1, num_draws=50, num_steps=5, prior_share=0.3, widening=1.5)
    fitted = proposal.fit(jax.random.key(7), model, params, x, model.prior.tabulate(params["prior"]))
    factor, weight = (np.asarray(a, np.float64) for a in (fitted.factors[0], params["decoder"]["weight"]))
    precision = np.broadcast_to((np.eye(3) + weight @ weight.T / 0.3**2) / 1.5**2, (10, 3, 3))
    np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), precision, rtol=1e-3)
    z = fitted.draw(jax.random.key(8), 4000)
    own = model.prior.log_prob(params["prior"], z)
    mixture = fitted.undefended().log_prob(z)
    defended = fitted.log_prob(z)
    expected = np.logaddexp(np.log(0.7) + np.asarray(mixture, np.float64), np.log(0.3) + np.asarray(own, np.float64))
    np.testing.assert_allclose(defended, expected, rtol=1e-4, atol=1e-4)
    for other in (mixture, own):
        ratio = np.exp(np.asarray(other - defended, np.float64))
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / np.sqrt(ratio.size)


@pytest.mark.slow
def test_modes_have_the_masses_of_their_peaks():
    """Two peaks of one height, of precision 401 and 26: the wide one has nearly four times the mass."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=0.2)
    model = kaem.Model(model.prior, Kinked((1,)), model.likelihood)
    params = params | {"decoder": {}}
    proposal = kaem.Laplace(num_modes=4, num_draws=400, num_steps=20)
    fitted = proposal.fit(jax.random.key(0), model, params, jnp.zeros((2, 1)), model.prior.tabulate(params["prior"]))
    modes, shares = np.asarray(fitted.modes[..., 0]), np.exp(np.asarray(fitted.log_shares, np.float64))
    narrow, wide = (np.sum(shares * (np.sign(modes) == side), axis=0) for side in (1, -1))
    np.testing.assert_allclose(
        wide / narrow, (401 / 26) ** 0.5 * np.exp(0.5 * (400 / 401 - 25 / 26) * 1.5**2), rtol=0.01
    )
    # By default a twentieth of the draws comes from the prior, so that no weight is above 20 p(x | z).
    z = jnp.zeros((1, 2, 1))
    floor = np.log(0.05) + np.asarray(model.prior.log_prob(params["prior"], z))
    assert np.all(fitted.log_prob(z) > floor - 1e-4)


@dataclasses.dataclass(frozen=True)
class Kinked:
    """4 (z - 1.5) on the right, z + 1.5 on the left."""

    data_shape: tuple[int, ...]

    def apply(self, params, features):
        del params
        return jnp.where(features > 0, 4 * (features - 1.5), features + 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["importance", "ais"])
def test_errors_are_calibrated(gaussian, method):
    """Over 40 keys the root mean square of (estimate - truth) / error is between 0.8 and 1.25, for the mean over data
    and for single data, with the heavy tails and the defence of the defaults."""
    model, params, x, (_, log_evidence) = gaussian
    options = {"num_samples": 400} if method == "importance" else {"num_chains": 40, "num_temperatures": 8}
    proposal = Laplace(num_modes=1, num_draws=100, num_steps=8)

    @jax.jit
    def repeat(keys):
        return jax.lax.map(
            lambda key: kaem.log_evidence(key, model, params, x, method, proposal=proposal, **options), keys
        )

    estimate = repeat(jax.random.split(jax.random.key(5), 40))
    deviation = np.asarray(estimate.value) - log_evidence
    score = deviation / np.asarray(estimate.standard_error)
    assert 0.8 < np.sqrt(np.mean(score**2)) < 1.25
    mean_score = deviation.mean(axis=1) / np.asarray(estimate.mean_standard_error)
    # Each variance is the larger of two estimates, one from the difference of two fits: for independent unit normals
    # that is 1.48 on average, hence a score of 0.82, which 40 values know to 11 %.
    assert 0.82 * 0.6 < np.sqrt(np.mean(mean_score**2)) < 0.82 * 1.5
    assert np.median(np.asarray(estimate.ess)) > 0.3 * (400 if method == "importance" else 40)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["importance", "ais"])
def test_both_modes_are_found(bimodal, method):
    model, params, x, truth = bimodal
    options = {"num_samples": 4000} if method == "importance" else {"num_chains": 400, "num_temperatures": 10}
    estimate = kaem.log_evidence(jax.random.key(6), model, params, x, method, proposal=Laplace(), **options)
    error = np.asarray(estimate.standard_error)
    assert_within(estimate.value, truth, 4.5 * error + 1e-4, 1)
    assert np.all(error < 0.1)
    shares = np.asarray(
        Laplace().fit(jax.random.key(6), model, params, x, model.prior.tabulate(params["prior"])).log_shares
    )
    assert np.all(np.sum(np.isfinite(shares), axis=0)[1:] >= 2)  # sqrt(x) and -sqrt(x)


@dataclasses.dataclass(frozen=True)
class FirstSquared:
    """The latents, the first of them squared."""

    data_shape: tuple[int, ...]

    def apply(self, params, features):
        del params
        return features.at[..., 0].set(features[..., 0] ** 2)


def test_modes_are_one_if_their_distance_is_below_half_a_deviation():
    """In all latents together, however many they are; of two the one with more density stays."""
    num = 100
    modes = jnp.zeros((3, 2, num)).at[1, :, 7].set(jnp.asarray([0.4, 0.6])).at[2, :, 3].set(4.0)
    factors = jnp.broadcast_to(jnp.eye(num), (3, 2, num, num))
    found = _is_duplicate(modes, factors, jnp.asarray([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[True, False], [False, False], [False, False]])


@pytest.mark.slow
def test_modes_that_lie_apart_along_one_latent_of_many_are_both_kept():
    """Nearly five deviations along one of 100 latents, less than half of one in the mean; truth by quadrature."""
    num = 100
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=num, size=num, sigma=1.0)
    model, params = dataclasses.replace(model, decoder=FirstSquared((num,))), params | {"decoder": {}}
    x = np.random.default_rng(1).normal(size=(2, num)) * 2**0.5
    x[:, 0] = 1.6
    z = np.linspace(-8, 8, 20_001)
    first = np.log(np.trapezoid(stats.norm.pdf(z) * stats.norm.pdf(1.6, z**2, 1), z))
    truth = first + stats.norm.logpdf(x[:, 1:], 0, 2**0.5).sum(axis=1)
    proposal = Laplace(num_modes=8, num_draws=2000, num_steps=8)
    x = jnp.asarray(x, jnp.float32)
    fitted = proposal.fit(jax.random.key(2), model, params, x, model.prior.tabulate(params["prior"]))
    sides = np.sign(np.asarray(fitted.modes)[..., 0]) * np.isfinite(np.asarray(fitted.log_shares))
    assert np.all(sides.min(axis=0) == -1)
    assert np.all(sides.max(axis=0) == 1)
    found = kaem.log_evidence(jax.random.key(3), model, params, x, num_samples=4000, proposal=proposal)
    error = np.asarray(found.standard_error)
    assert np.all(error < 0.1)
    assert_within(found.value, truth, error, 4.5)


@pytest.mark.slow
def test_a_population_goes_from_the_proposal_to_the_posterior(gaussian):
    """Where these are equal, log p(x, z) - log q(z | x) is log p(x) on every rung."""
    model, params, x, (_, log_evidence) = gaussian
    found = kaem.log_evidence(
        jax.random.key(3), model, params, x, "ti", num_temperatures=3, num_rounds=20, proposal=EXACT
    )
    np.testing.assert_allclose(found.value, log_evidence, atol=1e-3)


def test_no_normal_coordinate_is_too_far_for_a_quantile():
    prior = kaem.NonCentredPrior(kaem.MixturePrior(num_latents=3, num_components=2))
    table = prior.tabulate(prior.init(jax.random.key(0)))
    z = prior.coordinates(table, jnp.asarray([40.0, -40.0, 12.0]))
    assert np.all(np.isfinite(z))
    np.testing.assert_array_equal(np.sign(z), [1, -1, 1])


@pytest.mark.slow
def test_proposals_far_out_leave_a_number():
    """Where float32 has no quantile: one draw in a hundred of a t with two degrees of freedom."""
    prior = kaem.NonCentredPrior(kaem.MixturePrior(num_latents=3, num_components=2))
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(0.5), (2,))
    params = model.init(jax.random.key(0))
    proposal = Laplace(num_modes=1, num_draws=20, num_steps=2, degrees=2.0)
    x = jnp.zeros((5, 2))
    found = kaem.log_evidence(
        jax.random.key(1), model, params, x, "ti", num_temperatures=3, num_rounds=40, proposal=proposal
    )
    assert np.all(np.isfinite(found.value))


@pytest.mark.slow
def test_a_precision_that_rounding_spoils_leaves_a_number():
    """The decoder sees sums of two latents, so that a likelihood this sharp hides the prior's curvature."""
    prior = kaem.ProductPrior(num_latents=4, num_terms=2, grid_size=4)
    model = kaem.Model(prior, kaem.MLP((8,)), kaem.Gaussian(1e-5), (40,))
    params = model.init(jax.random.key(0))
    x = model.sample(jax.random.key(1), params, 3)
    fitted = Laplace(num_modes=2, num_draws=50, num_steps=3).fit(
        jax.random.key(2), model, params, x, model.prior.tabulate(params["prior"])
    )
    assert np.all(np.isfinite(fitted.factors))
    z = fitted.draw(jax.random.key(3), 20)
    assert np.all(np.isfinite(fitted.log_prob(z)))


@pytest.mark.parametrize(("log_joint", "is_sound"), [((1.0, 0.9), (False, True)), ((np.nan, 0.0), (True, True))])
def test_a_mode_that_is_lost_leaves_the_others(monkeypatch, log_joint, is_sound):
    """Two at one place, of which the better one has no factor or no density: the other is no duplicate of it."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=2, size=3, sigma=0.5)
    precisions = jnp.stack([jnp.eye(2) if sound else -jnp.eye(2) for sound in is_sound])[:, None]
    climbed = (jnp.zeros((2, 1, 2)), jnp.asarray(log_joint)[:, None], precisions)
    monkeypatch.setattr(Laplace, "_climb", lambda *_: climbed)
    fitted = Laplace(num_modes=2, num_draws=50).fit(
        jax.random.key(0), model, params, jnp.zeros((1, 3)), model.prior.tabulate(params["prior"])
    )
    np.testing.assert_allclose(np.exp(fitted.log_shares[:, 0]), [0, 1])
    assert np.all(np.isfinite(fitted.log_prob(jnp.zeros((1, 1, 2)))))


def test_draws_without_a_number_are_no_starts():
    """The largest of numbers and NaN is NaN, for which every datum would start there."""
    plain, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=0.5)
    model = kaem.Model(plain.prior, Fixed(jnp.log), plain.likelihood)  # NaN on one half
    proposal = Laplace(num_modes=2, num_draws=50, num_steps=1)
    fitted = proposal.fit(
        jax.random.key(0),
        model,
        params | {"decoder": {}},
        jnp.zeros((3, 1)),
        model.prior.tabulate((params | {"decoder": {}})["prior"]),
    )
    assert np.all(np.asarray(fitted.modes) > 0)


@pytest.mark.slow
def test_its_density_is_normalised_and_that_of_its_draws(bimodal):
    """By quadrature, and by a Kolmogorov-Smirnov test of draws against the integrated density."""
    model, params, x, _ = bimodal
    fitted = Laplace(prior_share=0.2).fit(jax.random.key(7), model, params, x, model.prior.tabulate(params["prior"]))
    z = np.linspace(-40, 40, 400_001)
    columns = jnp.broadcast_to(jnp.asarray(z, jnp.float32)[:, None, None], (z.size, 4, 1))
    density = np.exp(np.asarray(fitted.log_prob(columns), np.float64))
    steps = np.diff(z)[:, None] * (density[1:] + density[:-1]) / 2
    cdf = np.concatenate([np.zeros((1, 4)), np.cumsum(steps, axis=0)])
    np.testing.assert_allclose(cdf[-1], 1, atol=2e-3)  # tails like z^-7 beyond
    draws = np.asarray(fitted.draw(jax.random.key(8), 20_000))[..., 0]
    for b in range(4):
        level = np.interp(np.sort(draws[:, b]), z, cdf[:, b] / cdf[-1, b])
        ranks = np.arange(level.size + 1) / level.size
        statistic = max(np.max(ranks[1:] - level), np.max(level - ranks[:-1])) * np.sqrt(level.size)
        assert statistic < 1.95  # the 1e-3 point, and the little beyond +-40


@pytest.mark.slow
def test_whitening_is_linear_and_undone(gaussian):
    model, params, x, _ = gaussian
    fitted = Laplace().fit(jax.random.key(9), model, params, x, model.prior.tabulate(params["prior"]))
    z = fitted.draw(jax.random.key(10), 500)
    y = fitted.whiten(z)
    assert y.shape == (500, 10, 3)
    np.testing.assert_allclose(fitted.unwhiten(y), z, atol=1e-4)
    middle = np.median(np.abs(np.asarray(y)))
    assert 0.5 < middle < 1.0  # of a standard normal: 0.67
    np.testing.assert_allclose(fitted.whiten(0.5 * (z[:250] + z[250:])), 0.5 * (y[:250] + y[250:]), atol=2e-3)


CASES = {
    "product": {"num_each": 1},
    "uniform": {"kind": "mixture", "base_density": "uniform"},
    "lognormal": {"kind": "mixture", "base_density": "lognormal", "domain": (0.05, 6.0)},
    "rbf": {"kind": "mixture", "basis": "rbf", "base_density": "learnable_gaussian"},
    "non_centred_mixture": {},
    "comonotone": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("name", CASES)
def test_every_prior_with_a_density_agrees_with_many_prior_proposals(name, likelihood):
    """Two latents, where 200,000 proposals from the prior are enough: the two estimates differ by their errors."""
    if likelihood == "bernoulli" and name not in ("product", "comonotone"):
        pytest.skip("the likelihood is tested with two priors")
    prior = make_prior(**{"kind": name, "num_each": 2, "grid_size": 6} | CASES[name])
    model = make_model(prior, likelihood=kaem.Gaussian(0.4) if likelihood == "gaussian" else kaem.Bernoulli())
    params = model.init(jax.random.key(0))
    params["prior"]["bank"]["coefficients"] *= 5
    z = prior.sample(jax.random.key(1), params["prior"], (3,))
    x = model.simulate(jax.random.key(2), params, z)
    direct = kaem.log_evidence(jax.random.key(3), model, params, x, num_samples=200_000, chunk_size=10_000)
    proposed = kaem.log_evidence(
        jax.random.key(4), model, params, x, num_samples=4000, proposal=Laplace(num_modes=4, num_draws=500)
    )
    error = np.hypot(np.asarray(direct.standard_error), np.asarray(proposed.standard_error))
    assert_within(proposed.value, direct.value, 4.5 * error + 1e-4, 1)
    assert np.all(np.asarray(proposed.ess) > 200)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ais", "steppingstone"])
def test_bounded_latents_that_say_nothing_leave_an_estimate(method):
    """Eight of them: a hundredth of the draws of a Student's t lie inside, and chains that start outside stay there."""
    prior = kaem.MixturePrior(num_latents=9, num_components=2, base_density="uniform", grid_size=4)
    model = kaem.Model(prior, kaem.MLP((6,)), kaem.Gaussian(0.5), (3,))
    params = model.init(jax.random.key(0))
    first = params["decoder"]["dense_0"]["kernel"]
    params["decoder"]["dense_0"]["kernel"] = first.at[1:].set(0.0).at[0].multiply(3.0)
    z = prior.sample(jax.random.key(1), params["prior"], (4,))
    x = model.simulate(jax.random.key(2), params, z)
    options = {"num_chains": 50} if method == "ais" else {"num_rounds": 400}
    proposal = Laplace(num_modes=1, num_draws=50, num_steps=3)  # rungs start from the prior, which leaves out no mode
    found = kaem.log_evidence(
        jax.random.key(3), model, params, x, method, num_temperatures=8, proposal=proposal, **options
    )
    direct = kaem.log_evidence(jax.random.key(4), model, params, x, num_samples=100_000, chunk_size=20_000)
    error = np.hypot(np.asarray(found.standard_error), np.asarray(direct.standard_error))
    assert_within(found.value, direct.value, 5 * error + 1e-3, 1)
    assert np.all(found.ess > 10)
    assert not np.all(found.is_bound)


def test_annealing_from_a_fit_counts_the_fit_unless_it_starts_at_the_prior():
    """Two fits for importance sampling and annealing; where the support is bounded, rungs start from the prior."""
    proposal, x, key = Laplace(num_modes=2, num_draws=50, num_steps=3), jnp.zeros((2, 3)), jax.random.key(0)
    for base, num_fits in (("gaussian", 2), ("uniform", 0)):
        model = make_model("mixture", data_shape=(3,), base_density=base)
        params, fit = model.init(key), proposal.num_gradients(model)
        assert fit == 2 * (3 + 1) * (2 + 1)  # modes, steps and a last Jacobian, columns and a score
        _, annealed = AIS(num_chains=3, num_temperatures=8)(key, model, params, x, proposal)
        assert annealed.num_gradients == num_fits * fit + 8 * (3 + 2)
        _, sampled = ImportanceEstimator(num_samples=10)(key, model, params, x, proposal)
        assert sampled.num_gradients == 2 * fit


def test_a_prior_without_normaliser_takes_no_proposal(refuses):
    model = make_model("neural", num_steps=2, data_shape=(3,))
    params, x = model.init(jax.random.key(0)), jnp.zeros((2, 3))
    for call in (
        lambda: kaem.log_prob(jax.random.key(1), model, params, x, num_samples=4),
        lambda: kaem.log_evidence(jax.random.key(1), model, params, x, num_samples=4, proposal=Laplace()),
        lambda: bidirectional_bounds(jax.random.key(1), model, params, 2, proposal=Laplace()),
    ):
        with refuses(ValueError, "needs a prior that is normalised"):
            call()
    own = kaem.log_evidence(jax.random.key(1), model, params, x, num_samples=4, chunk_size=2)
    assert np.isfinite(np.asarray(own.value)).all()


@pytest.mark.slow
def test_bounds_from_both_sides_enclose_the_truth_more_tightly(gaussian):
    model, params, _, _ = gaussian
    exact = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.3)[2]
    gaps = []
    for proposal in (None, Laplace(num_modes=1, num_draws=100)):
        bounds = bidirectional_bounds(
            jax.random.key(11), model, params, 60, num_chains=4, num_temperatures=10, proposal=proposal
        )
        truth = exact(np.asarray(bounds.x, np.float64))[1]
        below, above = truth - np.asarray(bounds.lower), np.asarray(bounds.upper) - truth
        for gap in (below, above):
            assert gap.mean() > -3 * gap.std() / np.sqrt(60)
        gaps.append(below.mean() + above.mean())
    assert gaps[1] < 0.2 * gaps[0]


def test_refusals(refuses, gaussian):
    model, params, x, _ = gaussian
    with refuses(ValueError, "num_draws=4 must be at least num_modes=5"):
        kaem.Laplace(num_modes=5, num_draws=4)
    with refuses(ValueError, "points='sobol'"):
        kaem.log_evidence(jax.random.key(0), model, params, x, points="sobol", proposal=EXACT)
    with refuses(ValueError, "points='sobol'", "method='ais'"):
        kaem.log_evidence(jax.random.key(0), model, params, x, "ais", points="sobol")
    with refuses(ValueError, "kernel=PCNL()", "prior as proposal"):
        kaem.log_evidence(jax.random.key(0), model, params, x, "ais", kernel="pcnl", proposal=EXACT)
    with refuses(ValueError, "num_temperatures=1", "at least 2"):
        bidirectional_bounds(jax.random.key(0), model, params, 3, num_temperatures=1)
    neural = dataclasses.replace(model, prior=kaem.NeuralPrior(num_latents=3, num_steps=2))
    of_neural = params | {"prior": neural.prior.init(jax.random.key(0))}
    with refuses(ValueError, "exact draws"):
        bidirectional_bounds(jax.random.key(0), neural, of_neural, 3)


@pytest.mark.slow
def test_the_prior_as_proposal_is_no_proposal(gaussian):
    model, params, x, _ = gaussian
    with_it = kaem.log_evidence(jax.random.key(0), model, params, x, num_samples=100, proposal=PriorProposal())
    without = kaem.log_evidence(jax.random.key(0), model, params, x, num_samples=100)
    jax.tree.map(np.testing.assert_array_equal, with_it, without)
    both = [
        bidirectional_bounds(jax.random.key(0), model, params, 3, num_chains=1, num_temperatures=3, proposal=proposal)
        for proposal in (None, PriorProposal())
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)


@dataclasses.dataclass(frozen=True)
class Cauchy(Termwise):
    """Its curvature is negative wherever a datum is far from the output."""

    scale: float = 0.5

    def init(self, key):
        return {}

    def terms(self, params, output, x):
        return -jnp.log1p(jnp.square((x - output) / self.scale)) - math.log(math.pi * self.scale)

    def mean(self, params, output):
        return output

    def sample(self, key, params, output):
        return output + self.scale * jax.random.cauchy(key, output.shape, output.dtype)


@pytest.mark.slow
def test_a_likelihood_that_is_not_log_concave(gaussian):
    """Data of which no latent explains all values: the evidence by 400,000 draws of the prior."""
    model, params, _, _ = gaussian
    model = kaem.Model(model.prior, model.decoder, Cauchy())
    x = jnp.asarray([[5.0, -5.0, 5.0, 0.0, -5.0, 0.1], [0.1, 0.2, -0.1, 9.0, 0.0, 0.3]])
    estimate = kaem.log_evidence(jax.random.key(5), model, params, x, num_samples=4000, proposal=Laplace())
    assert_is_evidence(estimate, jax.random.key(6), model, params, x, 400_000)
    assert np.all(np.asarray(estimate.ess) > 0.05 * 4000)


@dataclasses.dataclass(frozen=True)
class Exponential(Termwise):
    """A likelihood of positive numbers only."""

    def init(self, key):
        del key
        return {}

    def terms(self, params, output, x):
        del params
        return jnp.where(x > 0, -output - x * jnp.exp(-output), -jnp.inf)

    def mean(self, params, output):
        del params
        return jnp.exp(output)


def test_an_impossible_datum_scores_minus_infinity(gaussian):
    model, params, _, _ = gaussian
    model = dataclasses.replace(model, likelihood=Exponential())
    params = params | {"likelihood": {}}
    x = jnp.abs(jax.random.normal(jax.random.key(0), (3, *model.data_shape))) + 0.1
    options = {"num_samples": 50, "proposal": Laplace(num_modes=2, num_draws=40, num_steps=3)}
    found = kaem.log_prob(jax.random.key(1), model, params, x.at[1].set(-1.0), **options)
    assert found.value[1] == -jnp.inf
    assert found.is_bound[1]
    assert np.isfinite(found.value[np.array([0, 2])]).all()


@pytest.mark.slow
def test_the_curvature_of_the_prior_has_a_floor(gaussian):
    """Of N(0, I) it is 1: a floor of 5 counts, one of 0.1 does not."""
    model, params, x, _ = gaussian
    weight = np.asarray(params["decoder"]["weight"], np.float64)
    of_data = weight @ weight.T / model.likelihood.sigma**2
    for floor, expected in ((5.0, 5.0), (0.1, 1.0)):
        proposal = Laplace(num_modes=1, num_draws=50, widening=1.0, floor=floor)
        factor = np.asarray(
            proposal.fit(jax.random.key(0), model, params, x[:1], model.prior.tabulate(params["prior"])).factors
        )[0, 0]
        np.testing.assert_allclose(factor @ factor.T, of_data + expected * np.eye(len(weight)), rtol=1e-4, atol=1e-3)
