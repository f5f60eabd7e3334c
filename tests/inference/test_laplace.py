"""Laplace proposals: exact on linear-Gaussian models, normalised, complete on two modes, honest about their errors."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.inference.proposals import Laplace
from kaem_jax.inference.proposals.laplace import _is_duplicate, curvature_along
from kaem_jax.inference.proposals.t_mixture import StudentMixture, spreads_of
from tests.builders import make_model, make_prior
from tests.inference.stubs import BOUND, MODEL, PARAMS, Normal, linear
from tests.truth import assert_within


def jitted(method):
    """A method of a proposal, or its `fit`, whose second argument is the model."""
    return jax.jit(method, static_argnums=1)


@pytest.mark.sweep
@pytest.mark.parametrize("degrees", [3.5, 6.0])
def test_a_mixture_of_t_distributions_is_that_of_scipy(rng, degrees):
    """With a share of the prior, N(0.5, I): densities, draws, coordinates of the largest component."""
    factors = np.float32(np.tril(rng.normal(size=(2, 2, 2, 2))) + 2 * np.eye(2))
    modes, shares = np.float32(rng.normal(size=(2, 2, 2))), np.float32([[0.3, 1.0], [0.7, 0.0]])
    num = 5000

    @jax.jit
    def seen(key, modes, factors, shares):
        fitted = StudentMixture(modes, factors, spreads_of(factors), jnp.log(shares), BOUND, degrees, prior_share=0.25)
        z = fitted.draw(key, num)
        return fitted.undefended(), z, fitted.log_prob(z), fitted.whiten(z), fitted.unwhiten(fitted.whiten(z))

    undefended, z, found, white, back = seen(jax.random.key(0), modes, factors, shares)
    assert undefended.prior_share == 0
    z = np.asarray(z, np.float64)
    assert len(np.unique(z)) > 0.99 * z.size
    for b in range(2):
        laws = [
            stats.multivariate_t(modes[k, b], np.linalg.inv(factors[k, b] @ factors[k, b].T), degrees, seed=k)
            for k in range(2)
        ]
        density = 0.75 * sum(shares[k, b] * laws[k].pdf(z[:, b]) for k in range(2))
        density += 0.25 * stats.norm(0.5).pdf(z[:, b]).prod(axis=-1)
        np.testing.assert_allclose(found[:, b], np.log(density), rtol=1e-4, atol=1e-4)
        which = rng.choice(3, size=(num, 1), p=[*(0.75 * shares[:, b]), 0.25])
        wanted = np.where(
            which == 0, laws[0].rvs(num), np.where(which == 1, laws[1].rvs(num), rng.normal(0.5, 1, size=(num, 2)))
        )
        for direction in (*np.eye(2), rng.normal(size=2)):
            assert stats.ks_2samp(z[:, b] @ direction, wanted @ direction).pvalue > 1e-4
        best = np.argmax(shares[:, b])
        np.testing.assert_allclose(white[:, b], (z[:, b] - modes[best, b]) @ factors[best, b], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(back, z, rtol=1e-3, atol=1e-3)


def test_a_fit_is_the_posterior_of_a_linear_gaussian_model(rng):
    """Also if the encoder's mean is a start; other starts are those of prior draws, of which one mode has none."""
    model, params, law, mean, covariance = linear(size=5, sigma=0.3)
    x, precision = np.float32(law.rvs(6, rng)), np.linalg.inv(covariance)
    key, encoder = jax.random.key(4), kaem.MLP((5,))
    params = params | {"encoder": jax.jit(model.bind_encoder(encoder).init)(key)}
    proposal = Laplace(num_modes=2, num_draws=50, num_steps=8, widening=1.5, prior_share=0.3, degrees=4.0)
    fitted = jitted(proposal.fit)(key, model, params, x, BOUND)
    shares = np.asarray(fitted.log_shares)
    np.testing.assert_allclose(np.asarray(fitted.modes)[np.argmax(shares, axis=0), range(6)], mean(x), atol=1e-4)
    assert np.all(np.sum(np.isfinite(shares), axis=0) == 1)  # the two starts end at one mode
    assert (fitted.prior_share, fitted.degrees) == (0.3, 4.0)
    factors = np.asarray(fitted.factors, np.float64)
    transposed = factors.swapaxes(-1, -2)
    np.testing.assert_allclose(factors @ transposed, np.broadcast_to(precision / 1.5**2, factors.shape), rtol=1e-3)
    identity = np.broadcast_to(np.eye(2), factors.shape)
    np.testing.assert_allclose(np.asarray(fitted.spreads) @ transposed, identity, atol=1e-4)
    # The prior's curvature is 1: a floor of 5 counts, one of 0.1 does not.
    curvature = jax.jit(Laplace(floor=5.0)._precision, static_argnums=0)
    found = curvature(model, params, x[:2], BOUND, np.ones((1, 2, 2), np.float32))
    wanted = np.broadcast_to(precision + 4 * np.eye(2), found.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)

    guess, _ = jax.jit(model.bind_encoder(encoder).apply)(params["encoder"], x)
    alone = jitted(proposal._starts)(key, model, params, x, BOUND)
    for num_modes in (1, 3):
        guided = dataclasses.replace(proposal, num_modes=num_modes, encoder=encoder)
        starts = jitted(guided._starts)(key, model, params, x, BOUND)
        assert starts.shape == (num_modes, 6, 2)
        np.testing.assert_allclose(starts[0], guess, rtol=1e-5)
        np.testing.assert_array_equal(starts[1:], np.asarray(alone)[: num_modes - 1])
    fitted = jitted(dataclasses.replace(guided, num_modes=1).fit)(key, model, params, x, BOUND)
    np.testing.assert_allclose(fitted.modes[0], mean(x), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_samples": 16}, {"method": "ais", "num_chains": 16, "num_temperatures": 5}])
def test_sixteen_proposals_give_the_exact_evidence_of_a_linear_gaussian_model(rng, options):
    """The posterior is the proposal itself, so that all weights are equal, on every rung."""
    model, params, law, *_ = linear(size=5, sigma=0.3)
    x = np.float32(law.rvs(6, rng))
    exact = Laplace(num_modes=2, num_draws=50, degrees=1e6, widening=1.0, prior_share=0.0)
    found = kaem.log_evidence(jax.random.key(3), model, params, x, proposal=exact, **options)
    np.testing.assert_allclose(found.value, law.logpdf(np.float64(x)), atol=1e-4)
    np.testing.assert_allclose(found.ess, 16, rtol=1e-3)


def test_modes_are_one_if_their_distance_is_below_half_a_deviation():
    """In all latents together, however many they are; of two the one with more density stays, or the earlier one."""
    modes, factors = np.zeros((3, 3, 100)), np.broadcast_to(np.eye(100), (3, 3, 100, 100))
    modes[1, :, 7], modes[2, :, 3] = [0.4, 0.6, 0.4], 4
    found = jax.jit(_is_duplicate)(modes, factors, np.array([[1.0, 1.0, 2.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[True, False, False], [False, False, True], [False] * 3])


def test_a_mode_that_is_lost_leaves_the_others():
    """Two at one place, of which the better one has no factor or no density: the other is no duplicate of it. Where all
    are impossible, any shares serve; where both are sound, these are of mass, not of height."""
    log_joint = np.float32([[1.0, np.nan, -np.inf, 0.5], [0.9, 0.0, -np.inf, 0.7]])
    precisions, modes = np.tile(np.eye(2, dtype=np.float32), (2, 4, 1, 1)), np.zeros((2, 4, 2), np.float32)
    precisions[0, 0] *= -1
    precisions[0, 3] *= 4
    modes[1, 3] = 9

    class Found(Laplace):
        def _starts(self, *_):
            return None

        def _climb(self, *_):
            return map(jnp.asarray, (modes, log_joint, precisions))

    class Inexact(Normal):
        has_exact_draws = False

    fitted, undefended = (
        jitted(Found().fit)(None, dataclasses.replace(MODEL, prior=prior), PARAMS, np.zeros((4, 2)), BOUND)
        for prior in (Normal(), Inexact())
    )
    assert (fitted.prior_share, undefended.prior_share) == (0.05, 0)
    shares = np.exp(np.asarray(fitted.log_shares, np.float64))
    np.testing.assert_allclose(shares[:, :2], [[0, 0], [1, 1]])
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[0, 3] / shares[1, 3], np.exp(-0.2) / 4, rtol=1e-4)
    assert np.all(np.isfinite(jax.jit(fitted.log_prob)(modes[:1])))


def test_starts_explain_a_datum_best_and_lie_apart():
    """Those without a number are none: the largest of numbers and NaN is NaN."""

    class Half(kaem.Model):
        def pairwise_log_likelihood(self, params, z, x, prior=None):
            return jnp.where(z[:, 0] > 0, -jnp.square(x[:, :1] - z[:, 0]), jnp.nan)

    half = Half(**{name: getattr(MODEL, name) for name in ("prior", "decoder", "likelihood")})
    x, key = np.float32([[1.0, 0.0], [2.0, 0.0]]), jax.random.key(0)
    found = np.asarray(jitted(Laplace(num_modes=3, num_draws=60)._starts)(key, half, PARAMS, x, BOUND))
    z = np.asarray(BOUND.sample(key, (1, 60)))[0]
    for b in range(2):
        score = np.where(z[:, 0] > 0, -((float(x[b, 0]) - z[:, 0]) ** 2) - np.sum((z - 0.5) ** 2, axis=-1) / 2, -np.inf)
        for k in range(3):
            best = z[np.argmax(score)]
            np.testing.assert_allclose(found[k, b], best, rtol=1e-5)
            score[np.sum(((z - best) / z.std(axis=0)) ** 2, axis=-1) < 0.5**2 * 2 * 2] = -np.inf


CASES = {
    "product": {"num_each": 1},
    "uniform": {"kind": "mixture", "base_density": "uniform"},
    "lognormal": {"kind": "mixture", "base_density": "lognormal", "domain": (0.05, 6.0)},
    "rbf": {"kind": "mixture", "basis": "rbf", "base_density": "learnable_gaussian"},
    "comonotone": {},
}


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "likelihood"),
    [(name, "gaussian") for name in CASES] + [(name, "bernoulli") for name in ("product", "comonotone")],
)
def test_every_prior_with_a_density_agrees_with_many_prior_proposals(name, likelihood):
    """Two latents, where 200,000 proposals from the prior are enough."""
    prior = make_prior(**{"kind": name, "num_each": 2, "grid_size": 6} | CASES[name])
    model = make_model(prior, likelihood=kaem.Gaussian(0.4) if likelihood == "gaussian" else kaem.Bernoulli())
    params = model.init(jax.random.key(0))
    params["prior"]["bank"]["coefficients"] *= 5
    x = model.simulate(jax.random.key(2), params, prior.bind(params["prior"]).sample(jax.random.key(1), (3,)))
    options = {"num_samples": 4000, "proposal": Laplace(num_modes=4, num_draws=500)}
    found = kaem.log_evidence(jax.random.key(4), model, params, x, **options)
    z = prior.bind(params["prior"]).sample(jax.random.key(3), (200_000,))
    values = np.asarray(jax.device_get(model.pairwise_log_likelihood(params, z, x)), np.float64)
    truth = special.logsumexp(values, axis=1) - np.log(200_000)
    spread = np.exp(values - truth[:, None]).std(axis=1) / np.sqrt(200_000)
    assert_within(found.value, truth, np.hypot(np.asarray(found.standard_error), spread), 5)
    assert np.all(np.asarray(found.ess) > 200)


def test_curvature_of_tails_that_are_not_log_concave_counts_as_zero():
    """Of log(1 + gap^2) it is 2 at the middle, and negative beyond a gap of 1."""

    def log_prob(params, output, x):
        return -jnp.sum(jnp.log1p(jnp.square(x - output)), axis=-1)

    model, directions = SimpleNamespace(likelihood=SimpleNamespace(log_prob=log_prob)), np.eye(2)[:, None, None]
    along = jax.jit(lambda *of: curvature_along(model, {"likelihood": {}}, *of))
    found = np.asarray(along(np.array([[[0.0, 3.0]]]), np.zeros((1, 2)), directions))
    np.testing.assert_allclose(found[:, 0, 0], [[2, 0], [0, 0]], atol=1e-6)
