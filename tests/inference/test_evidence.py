"""Estimates of log p(x) against closed forms and quadrature: within their own errors, bounds on their sides."""

import dataclasses
import functools
import importlib
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.evidence import annealed_evidence, bidirectional_bounds
from kaem_jax.inference.evidence.annealed_evidence import _pilot, annealed_log_weights
from kaem_jax.inference.evidence.estimate import evidence_of_weights, is_bound
from kaem_jax.inference.evidence.log_evidence import importance_evidence, proposal_log_weights
from kaem_jax.inference.proposals import EncoderProposal, Laplace, PriorProposal, Proposal
from kaem_jax.inference.proposals.annealing_path import Path, evidence_path, log_joint_density
from kaem_jax.inference.samplers.base import RungDraws, TemperedDraws
from kaem_jax.mcmc import HMC, MALA, power_ladder
from kaem_jax.training.loss import posterior_loss
from tests.inference.stubs import BOUND, ENCODER, MODEL, PARAMS, linear, model_of
from tests.linear_gaussian import linear_gaussian
from tests.truth import assert_within


def test_fits_that_found_different_modes_differ_by_their_error(rng):
    """Weights of 1 and of 3: nothing but the two means tells that the estimate may be off by a half."""
    log_weights = jnp.log(jnp.broadcast_to(jnp.asarray([1.0, 3.0])[:, None, None], (2, 500, 4)))
    found = evidence_of_weights(log_weights)
    np.testing.assert_allclose(found.value, np.log(2), rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, 0.5, rtol=1e-5)
    np.testing.assert_allclose(found.mean_standard_error, 0.5 / 2, rtol=1e-5)
    # Where the means agree, it is the spread of all weights.
    weights = rng.exponential(size=(1, 400, 3))
    found = evidence_of_weights(jnp.asarray(np.log(weights), jnp.float32))
    error = weights[0].std(axis=0, ddof=1) / weights[0].mean(axis=0) / 20
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)
    np.testing.assert_allclose(found.mean_standard_error, np.sqrt(np.sum(error**2)) / 3, rtol=1e-4)
    np.testing.assert_allclose(found.ess, weights[0].sum(axis=0) ** 2 / (weights[0] ** 2).sum(axis=0), rtol=1e-4)


def test_errors_of_annealing_are_those_of_its_estimates():
    model, params, law, *_ = linear(size=2, sigma=1.0)
    x = np.float32(law.rvs(5, np.random.default_rng(2)))
    options = {"num_chains": 100, "num_temperatures": 4}
    run = jax.vmap(lambda key: kaem.log_evidence(key, model, params, x, "ais", **options))
    found, truth = jax.jit(run)(jax.random.split(jax.random.key(0), 60)), law.logpdf(np.float64(x))
    single = np.mean(np.square((np.asarray(found.value) - truth) / np.asarray(found.standard_error)))
    of_mean = (np.asarray(found.value).mean(axis=1) - truth.mean()) / np.asarray(found.mean_standard_error)
    assert 0.6 < single < 1.6
    assert 0.6 < np.mean(np.square(of_mean)) < 1.6


def test_steps_of_the_pilot():
    """On a flat density all moves are accepted, and steps grow to their bound; a datum that is no number slows no chain
    down."""

    @jax.jit
    def steps(scale):
        density = lambda z: -0.5 * jnp.square(z[..., 0]) * scale  # noqa: E731
        path = Path(density, density, lambda key, num: jnp.full((num, 4, 1), 0.3), None, None, 1.0)
        return _pilot(jax.random.key(0), path, power_ladder(30), MALA())

    flat = steps(np.zeros(4))
    assert flat[0] < 1
    np.testing.assert_allclose(flat.max(), 1.9, rtol=1e-5)
    alone, beside = steps(np.ones(4))[-1], steps(np.array([1.0, np.nan, np.nan, np.nan]))[-1]
    assert alone > 0.3
    assert abs(np.log(beside / alone)) < 1.5


@pytest.mark.slow
def test_bidirectional_bounds_enclose_the_truth():
    """More temperatures tighten both, and so does a proposal."""
    (model, params, law, *_), gaps = linear(size=6, sigma=0.3), []
    for num, proposal in ((10, None), (100, None), (10, Laplace(num_modes=1, num_draws=100))):
        options = {"num_chains": 4, "num_temperatures": num, "proposal": proposal}
        bounds = bidirectional_bounds(jax.random.key(6), model, params, 80, **options)
        truth = law.logpdf(np.asarray(bounds.x, np.float64))
        below, above = truth - np.asarray(bounds.lower), np.asarray(bounds.upper) - truth
        for gap in (below, above):
            assert gap.mean() > -3 * gap.std() / np.sqrt(80)
        gaps.append(below.mean() + above.mean())
    assert gaps[1] < 0.5 * gaps[0]
    assert gaps[2] < 0.2 * gaps[0]


@pytest.mark.parametrize("proposal", [None, EncoderProposal(ENCODER)], ids=["none", "encoder"])
def test_bounds_are_means_of_weights_in_both_directions(monkeypatch, proposal):
    """The lower one is log mean exp(w), the upper one -log mean exp(-w): means of w or of exp(w) would be looser.

    Chains go forward from draws of the prior, and in reverse from the latents of the data, with the kernel given. In
    place of annealing, which takes long to compile, there are numbers that tell of all that it is given.
    """
    key, kernel = jax.random.key(6), HMC(2)

    def pilot(key, path, betas, kernel):
        assert kernel == HMC(2)
        return jax.random.uniform(key, (2,)) + betas[1:]

    def weights(key, log_start, log_gain, z0, betas, step_size, *, kernel, bounds, reverse=False):
        assert (kernel, bounds) == (HMC(2), None)
        told = log_start(z0) + 0.5 * log_gain(z0) + step_size @ betas[1:]
        return told + jax.random.normal(key, told.shape) + 5 * reverse

    monkeypatch.setattr(annealed_evidence, "_pilot", pilot)
    monkeypatch.setattr(annealed_evidence, "annealed_log_weights", weights)
    options = {"num_chains": 4, "num_temperatures": 3, "kernel": kernel, "proposal": proposal}
    bounds = bidirectional_bounds(key, MODEL, PARAMS, 7, **options)
    of_latent, of_data, of_pilot, of_start, *ways = jax.random.split(key, 6)
    z = BOUND.sample(of_latent, (7,))
    np.testing.assert_allclose(bounds.x, MODEL.simulate(of_data, PARAMS, z, BOUND), rtol=1e-5)

    @jax.jit
    def weights_of(x, z):
        fitted, exponent, key = None, 3.0, of_pilot
        if isinstance(proposal, EncoderProposal):  # chains move in its coordinates
            (of_fit, key), exponent = jax.random.split(of_pilot), 1.0
            fitted = proposal.fit(of_fit, MODEL, PARAMS, x, BOUND)
        path, betas = evidence_path(MODEL, PARAMS, x, fitted, BOUND), power_ladder(3, exponent)
        starts = (path.draw(of_start, 4), jnp.broadcast_to(path.position_of(z), (4, 7, 2)))
        given = (betas, pilot(key, path, betas, kernel))
        return [
            weights(way, path.log_start, path.log_gain, start, *given, kernel=kernel, bounds=None, reverse=is_reverse)
            for is_reverse, way, start in zip((False, True), ways, starts, strict=True)
        ]

    forward, backward = np.asarray(weights_of(bounds.x, z), np.float64)
    np.testing.assert_allclose(bounds.lower, special.logsumexp(forward, axis=0) - np.log(4), rtol=1e-3)
    np.testing.assert_allclose(bounds.upper, np.log(4) - special.logsumexp(-backward, axis=0), rtol=1e-3)


def test_weights_in_reverse_average_to_one_over_p_x(rng):
    """From exact posterior draws E exp(-w) = 1 / p(x), not only a bound."""
    (model, params, law, mean, covariance), num = linear(size=2, sigma=1.0), 40_000
    x = np.float32(law.rvs(3, rng))
    start = mean(x) + rng.multivariate_normal(np.zeros(2), covariance, (num, 3))
    betas, steps = jnp.asarray([0, 0.05, 0.15, 0.4, 0.7, 1]), jnp.full(5, 0.3)

    @jax.jit
    def found(key, z):
        path = evidence_path(model, params, x, None, BOUND)
        run = functools.partial(annealed_log_weights, key, path.log_start, path.log_gain, z)
        return run(betas, steps, reverse=True), run(betas[::5], steps[:1]), path.log_gain(z)

    log_weights, at_once, gain = found(jax.random.key(1), start)
    ratio = np.exp(law.logpdf(np.float64(x)) - np.asarray(log_weights, np.float64))
    error = ratio.std(axis=0) / np.sqrt(num)
    assert_within(ratio.mean(axis=0), 1, error, 4.5)
    assert np.all(error < 0.02)
    # From beta 0 to 1 at once, weights are the likelihoods of the starting points.
    np.testing.assert_allclose(at_once, gain, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Modes(Proposal):
    """The prior, moved by a number that tells the key of the fit."""

    finds_modes: bool = True

    def fit(self, key, model, params, x, prior):
        moved = {"mean": params["prior"]["mean"] + 0.2 * jax.random.normal(key)}
        return PriorProposal().fit(None, model, params, x, model.prior.bind(moved))


def test_log_evidence_is_its_method_with_the_options_that_are_given():
    """With its key; none of the options is a default. Those of annealing are tested below."""
    key, x = jax.random.key(3), np.float32(np.random.default_rng(1).normal(size=(6, 2)))
    run = functools.partial(kaem.log_evidence, key, MODEL, PARAMS, x)
    points = {"points": "sobol", "num_samples": 64, "chunk_size": 16}
    wanted = importance_evidence(key, MODEL, PARAMS, x, BOUND, **points)
    for proposal in (None, PriorProposal()):
        jax.tree.map(np.testing.assert_array_equal, run(**points, proposal=proposal), wanted)
    default = inspect.signature(kaem.log_evidence).parameters["num_chains"].default
    assert not is_bound(jnp.asarray(float(default)), default)  # so that annealing by default can be an estimate


@pytest.mark.parametrize(("finds_modes", "bounds"), [(False, None), (True, None), (False, (-9.0, 9.0))])
def test_one_mode_gives_bounds_and_several_give_two_estimates(monkeypatch, finds_modes, bounds):
    """No weight tells of the modes that are missed, however many effective draws there are. Half of the draws are those
    of a second fit, with keys of its own. From bounded latents annealing starts at the prior, which misses no mode.
    Annealing itself takes long to compile: in its place there are numbers that tell of what it is given.
    """

    def annealed(key, path, *, num_chains, num_temperatures, kernel):
        assert kernel == HMC(2)
        z = path.draw(key, num_chains)
        return 0.1 * path.log_gain(z) + num_temperatures * 0.1 * path.log_start(z)

    monkeypatch.setattr(importlib.import_module(importance_evidence.__module__), "path_log_weights", annealed)
    model, x, key = model_of(bounds), np.float32(np.random.default_rng(1).normal(size=(6, 2))), jax.random.key(4)
    bound, proposal, fits = model.prior.bind(PARAMS["prior"]), Modes(finds_modes), 2 if finds_modes else 1
    keys = [jax.random.split(one) for one in jax.random.split(key, fits)]
    for method, total, options in (
        ("importance", {"num_samples": 401}, {"chunk_size": 64}),
        ("ais", {"num_chains": 201}, {"num_temperatures": 3, "kernel": HMC(2)}),
    ):
        found = kaem.log_evidence(key, model, PARAMS, x, method, proposal=proposal, **total, **options)
        half = {name: -(-num // fits) for name, num in total.items()}

        @jax.jit
        def log_weights(of_fit, of_run, method=method, options=half | options):
            fitted = proposal.fit(of_fit, model, PARAMS, x, bound)
            if method == "importance":
                return proposal_log_weights(of_run, model, PARAMS, x, fitted, bound, **options)
            return annealed(of_run, evidence_path(model, PARAMS, x, fitted, bound), **options)

        expected = evidence_of_weights(jnp.stack([log_weights(*pair) for pair in keys]))
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-3)
        np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-2)
        assert np.all(found.ess > 20)
        starts_at_prior = method == "ais" and bounds is not None
        assert np.all(found.is_bound == (not finds_modes and not starts_at_prior))


def test_refusals(refuses):
    x, of = np.zeros((3, 2)), (jax.random.key(0), MODEL, PARAMS)
    run, bounds = (functools.partial(method, *of) for method in (kaem.log_evidence, bidirectional_bounds))
    neural = (of[0], dataclasses.replace(MODEL, prior=kaem.NeuralPrior(num_latents=2, num_steps=2)), PARAMS)
    refuses.each(
        (lambda: run(x[:0]), ["x holds no data"]),
        (lambda: run(x, "ais", kernel="ula"), ["kernel=ULA()", "MALA()"]),
        (lambda: run(x, "ais", num_temperatures=1), ["num_temperatures=1", "at least 2"]),
        (lambda: run(x, num_samples=1), ["num_samples=1", "at least 2"]),
        (lambda: run(x, "magic"), ["method='magic'", "importance"]),
        (lambda: run(x, points="sobol", proposal=Laplace()), ["points='sobol'", "'random'"]),
        (lambda: bounds(3, num_temperatures=1), ["num_temperatures=1", "at least 2"]),
        (lambda: bidirectional_bounds(*neural, 3), ["exact draws"]),
        (lambda: bidirectional_bounds(*neural, 3, proposal=Laplace()), ["normalised"]),
        (lambda: kaem.log_evidence(*neural, x, proposal=Laplace()), ["normalised"]),
        (lambda: kaem.log_prob(*neural, x), ["normalised", "PriorProposal()"]),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "wanted"), [(0.5, -0.283), (2.0, 0.122)])
def test_the_papers_detached_sums_are_biased(x64, exponent, wanted):
    """Toy of docs/method.md, section 9: z ~ N(0, 1), x | z ~ N(w z, s^2), w = 1.5, s = 0.5, x = 2. Truth 0.360."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=0.5)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)
    betas = np.asarray(power_ladder(21, exponent))
    precision = 1 + betas * 1.5**2 / 0.5**2
    mean = betas * 1.5 * 2 / 0.5**2 / precision
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    rungs = jnp.asarray(mean[:, None] + quantiles / np.sqrt(precision)[:, None])[:, :, None, None]  # [T, C, 1, 1]

    def derivative(draws):
        def loss(weight):
            new = params | {"decoder": {"weight": weight, "bias": jnp.zeros(1)}}
            return posterior_loss(jax.random.key(0), model, new, jnp.asarray([[2.0]]), draws)[0]

        return -float(jax.grad(loss)(jnp.asarray([[1.5]])).squeeze())

    # Width of the ladder times E_beta[z (x - w z)] / s^2, by the moments of the tempered posteriors.
    trapezoid = np.trapezoid((2 * mean - 1.5 * (mean**2 + 1 / precision)) / 0.5**2, betas)
    assert trapezoid == pytest.approx(wanted, abs=5e-4)
    assert derivative(TemperedDraws(rungs[-1], {})) == pytest.approx(0.360, abs=1e-3)
    of_rungs = RungDraws(rungs[-1], {}, rungs, jnp.asarray(betas), "thermodynamic")
    assert derivative(of_rungs) == pytest.approx(trapezoid, abs=2e-3)


def test_evidence_is_not_differentiated():
    """A gradient through what has none, such as accept steps and the choice of a cluster, would be a wrong one."""

    def total(params, x):
        return jnp.sum(kaem.log_evidence(jax.random.key(0), MODEL, params, x, num_samples=8).value)

    slopes = jax.grad(total, argnums=(0, 1))(PARAMS, np.zeros((3, 2), np.float32))
    jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0), slopes)


def test_each_chunk_has_proposals_of_its_own(rng):
    x, keys = np.float32(rng.normal(size=(3, 2))), jax.random.split(jax.random.key(1), 4)
    fitted = PriorProposal().fit(None, MODEL, PARAMS, x, BOUND)
    found = proposal_log_weights(jax.random.key(1), MODEL, PARAMS, x, fitted, BOUND, num_samples=7, chunk_size=6)
    z = np.concatenate([BOUND.sample(key, (2, 3)) for key in keys])  # two for each of three data at once
    wanted = jax.jit(lambda z: MODEL.log_likelihood(PARAMS, z, x, BOUND))(z)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_path_from_a_proposal_leaves_out_the_priors_share():
    """Annealing does not need it, and it costs an evaluation at each step. Bounded latents start at the prior."""
    own = SimpleNamespace(
        log_prob=lambda z: 7 * z[..., 0], unwhiten=lambda y: y / 5, whiten=lambda z: 5 * z, draw=lambda key, num: num
    )
    # Heavy tails propose points so far out that there is no number: the model has no mass there.
    lost = SimpleNamespace(log_joint=lambda *_: jnp.asarray([np.nan, 1.0]))
    fitted, x = SimpleNamespace(undefended=lambda: own), np.ones((1, 2), np.float32)
    path, bounded = (evidence_path(model_of(to), PARAMS, x, fitted, BOUND) for to in (None, (-3.0, 3.0)))

    @jax.jit
    def seen(z):
        ends = [(of.log_start(y)[0], of.log_gain(y)[0]) for of, y in ((path, 5 * z), (bounded, z))]
        own_ends = MODEL.log_joint(PARAMS, z, x, BOUND)[0], BOUND.log_prob(z)[0]
        return ends, own_ends, path.position_of(z), log_joint_density(lost, None, None, None, None)

    (of_path, of_bounded), (log_joint, log_prior), position, of_lost = seen(np.full((1, 2), 2.0))
    np.testing.assert_allclose(of_path, (14, log_joint - 14), rtol=1e-5)
    np.testing.assert_allclose(of_bounded, (log_prior, log_joint - log_prior), rtol=1e-5)
    assert (path.exponent, path.bounds, bounded.exponent, bounded.bounds) == (1, None, 3, (-3.0, 3.0))
    np.testing.assert_array_equal(position, [[10, 10]])
    np.testing.assert_array_equal(of_lost, [-np.inf, 1])
