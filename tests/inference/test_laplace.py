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
from tests.inference.stubs import BOUND, MODEL, PARAMS, Normal
from tests.truth import assert_within

EXACT = Laplace(num_modes=2, num_draws=50, degrees=1e6, widening=1.0, prior_share=0.0)


def starts_of(proposal, key, model, *rest):
    return jax.jit(proposal._starts, static_argnums=1)(key, model, *rest)


def precision_of(case):
    weight = np.asarray(case.params["decoder"]["weight"], np.float64)
    return weight @ weight.T / 0.3**2


@pytest.mark.sweep
@pytest.mark.parametrize("degrees", [3.5, 6.0])
def test_a_mixture_of_t_distributions_is_that_of_scipy(gaussian, rng, degrees):
    """With a share of the prior, N(0, I): densities, draws, coordinates of the largest component."""
    bound = gaussian.bound
    factors = np.tril(rng.normal(size=(2, 2, 3, 3))) + 2 * np.eye(3)
    modes, shares = rng.normal(size=(2, 2, 3)), np.array([[0.3, 1.0], [0.7, 0.0]])
    as_float32 = [jnp.asarray(part, jnp.float32) for part in (modes, factors)]
    log_shares = jnp.log(jnp.asarray(shares, jnp.float32))
    fitted = StudentMixture(*as_float32, spreads_of(as_float32[1]), log_shares, bound, degrees, prior_share=0.25)
    assert fitted.undefended().prior_share == 0
    num = 5000
    draw, log_prob = (
        jax.jit(lambda key: fitted.draw(key, num)),
        jax.jit(lambda z: (fitted.log_prob(z), fitted.whiten(z))),
    )
    z = draw(jax.random.key(0))
    (found, white), z = log_prob(z), np.asarray(z, np.float64)
    assert len(np.unique(z)) > 0.99 * z.size
    for b in range(2):
        laws = [
            stats.multivariate_t(modes[k, b], np.linalg.inv(factors[k, b] @ factors[k, b].T), degrees, seed=k)
            for k in range(2)
        ]
        density = 0.75 * sum(shares[k, b] * laws[k].pdf(z[:, b]) for k in range(2))
        density += 0.25 * stats.norm.pdf(z[:, b]).prod(axis=-1)
        np.testing.assert_allclose(found[:, b], np.log(density), rtol=1e-4, atol=1e-4)
        which = rng.choice(3, size=(num, 1), p=[*(0.75 * shares[:, b]), 0.25])
        wanted = np.where(
            which == 0, laws[0].rvs(num), np.where(which == 1, laws[1].rvs(num), rng.normal(size=(num, 3)))
        )
        for direction in (*np.eye(3), rng.normal(size=3)):
            assert stats.ks_2samp(z[:, b] @ direction, wanted @ direction).pvalue > 1e-4
        best = np.argmax(shares[:, b])
        np.testing.assert_allclose(white[:, b], (z[:, b] - modes[best, b]) @ factors[best, b], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fitted.unwhiten(white), z, rtol=1e-3, atol=1e-3)


def test_a_fit_is_the_posterior_of_a_linear_gaussian_model(gaussian):
    model, params, x, _, bound, mean = gaussian
    proposal = Laplace(num_modes=2, num_draws=50, num_steps=8, widening=1.5, prior_share=0.3, degrees=4.0)
    fitted = jax.jit(proposal.fit, static_argnums=1)(jax.random.key(4), model, params, x, bound)
    np.testing.assert_allclose(fitted.modes[jnp.argmax(fitted.log_shares, axis=0), jnp.arange(6)], mean, atol=1e-4)
    assert np.all(np.sum(np.isfinite(np.asarray(fitted.log_shares)), axis=0) == 1)  # the two starts end at one mode
    assert (fitted.prior_share, fitted.degrees) == (0.3, 4.0)
    factors = np.asarray(fitted.factors, np.float64)
    transposed = factors.swapaxes(-1, -2)
    wanted = (precision_of(gaussian) + np.eye(3)) / 1.5**2
    np.testing.assert_allclose(factors @ transposed, np.broadcast_to(wanted, factors.shape), rtol=1e-3)
    identity = np.broadcast_to(np.eye(3), factors.shape)
    np.testing.assert_allclose(np.asarray(fitted.spreads) @ transposed, identity, atol=1e-4)
    # The prior's curvature is 1: a floor of 5 counts, one of 0.1 does not.
    found = jax.jit(Laplace(floor=5.0)._precision, static_argnums=0)(model, params, x[:2], bound, jnp.ones((1, 2, 3)))
    wanted = precision_of(gaussian) + 5 * np.eye(3)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_sixteen_proposals_give_the_exact_evidence_of_a_linear_gaussian_model(gaussian):
    """The posterior is the proposal itself, so that all weights are equal, on every rung."""
    model, params, x, log_evidence, *_ = gaussian
    for method, options in (
        ("importance", {"num_samples": 16}),
        ("ais", {"num_chains": 16, "num_temperatures": 5}),
    ):
        found = kaem.log_evidence(jax.random.key(3), model, params, x, method, proposal=EXACT, **options)
        np.testing.assert_allclose(found.value, log_evidence, atol=1e-4)
        if method == "importance":
            np.testing.assert_allclose(found.ess, 16, rtol=1e-4)


def test_modes_are_one_if_their_distance_is_below_half_a_deviation():
    """In all latents together, however many they are; of two the one with more density stays, or the earlier one."""
    num = 100
    modes = jnp.zeros((3, 3, num)).at[1, :, 7].set(jnp.asarray([0.4, 0.6, 0.4])).at[2, :, 3].set(4.0)
    factors = jnp.broadcast_to(jnp.eye(num), (3, 3, num, num))
    found = _is_duplicate(modes, factors, jnp.asarray([[1.0, 1.0, 2.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[True, False, False], [False, False, True], [False] * 3])


def test_a_mode_that_is_lost_leaves_the_others():
    """Two at one place, of which the better one has no factor or no density: the other is no duplicate of it. Where all
    are impossible, any shares serve; where both are sound, these are of mass, not of height."""
    log_joint = jnp.asarray([[1.0, np.nan, -np.inf, 0.5], [0.9, 0.0, -np.inf, 0.7]])
    precisions = jnp.broadcast_to(jnp.eye(2), (2, 4, 2, 2)).at[0, 0].multiply(-1).at[0, 3].multiply(4)
    modes = jnp.zeros((2, 4, 2)).at[1, 3].set(9.0)

    class Found(Laplace):
        def _starts(self, *_):
            return None

        def _climb(self, *_):
            return modes, log_joint, precisions

    class Inexact(Normal):
        has_exact_draws = False

    fitted, undefended = (
        Found().fit(None, dataclasses.replace(MODEL, prior=prior), PARAMS, jnp.zeros((4, 2)), BOUND)
        for prior in (Normal(), Inexact())
    )
    assert (fitted.prior_share, undefended.prior_share) == (0.05, 0)
    shares = np.exp(np.asarray(fitted.log_shares, np.float64))
    np.testing.assert_allclose(shares[:, :2], [[0, 0], [1, 1]])
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[0, 3] / shares[1, 3], np.exp(-0.2) / 4, rtol=1e-4)
    assert np.all(np.isfinite(fitted.log_prob(jnp.zeros((1, 4, 2)))))


def test_starts_explain_a_datum_best_and_lie_apart():
    """Those without a number are none: the largest of numbers and NaN is NaN."""

    class Half(kaem.Model):
        def pairwise_log_likelihood(self, params, z, x, prior=None):
            return jnp.where(z[:, 0] > 0, -jnp.square(x[:, :1] - z[:, 0]), jnp.nan)

    half = Half(**{name: getattr(MODEL, name) for name in ("prior", "decoder", "likelihood")})
    x, key = jnp.asarray([[1.0, 0.0], [2.0, 0.0]]), jax.random.key(0)
    found = np.asarray(starts_of(Laplace(num_modes=3, num_draws=60), key, half, PARAMS, x, BOUND))
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

    model, directions = SimpleNamespace(likelihood=SimpleNamespace(log_prob=log_prob)), jnp.eye(2)[:, None, None]
    found = curvature_along(model, {"likelihood": {}}, jnp.asarray([[[0.0, 3.0]]]), jnp.zeros((1, 2)), directions)
    np.testing.assert_allclose(found[:, 0, 0], [[2, 0], [0, 0]], atol=1e-6)


def test_an_encoders_mean_is_the_first_start(gaussian):
    """Other starts are those of prior draws, of which there are none with one mode; the mode found is the same."""
    model, params, x = gaussian.model, gaussian.params, gaussian.x
    encoder = kaem.MLP((5,))
    params = params | {"encoder": model.bind_encoder(encoder).init(jax.random.key(4))}
    mean, _ = model.bind_encoder(encoder).apply(params["encoder"], x)
    given = {"num_draws": 50, "num_steps": 1}
    key = jax.random.key(5)
    alone = starts_of(kaem.Laplace(num_modes=2, **given), key, model, params, x, gaussian.bound)
    for num_modes in (1, 3):
        proposal = kaem.Laplace(num_modes=num_modes, encoder=encoder, **given)
        starts = starts_of(proposal, key, model, params, x, gaussian.bound)
        assert starts.shape == (num_modes, *mean.shape)
        np.testing.assert_allclose(starts[0], mean, rtol=1e-6)
        np.testing.assert_array_equal(starts[1:], alone[: num_modes - 1])
    proposal = kaem.Laplace(num_modes=1, num_steps=3, encoder=encoder)
    fitted = jax.jit(proposal.fit, static_argnums=1)(key, model, params, x, gaussian.bound)
    np.testing.assert_allclose(fitted.modes[0], gaussian.mean, atol=1e-3)
