"""Clustered priors fitted without gradients: EM, axes, shapes, and the choice of their size."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.mixture import GaussianMixture

import kaem_jax as kaem
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.priors import em, shapes
from kaem_jax.priors.em import expectation, fit_gaussians, mean_log_prob
from kaem_jax.priors.fit_prior import choose, held_out_tenth
from kaem_jax.training.refit import posterior_codes
from tests.builders import Compiled

KEY = jax.random.key(0)


def prior_of(num_clusters, kind, size=2, **fields):
    return kaem.ClusteredPrior(
        num_latents=size, num_clusters=num_clusters, map=kind, proportions="learned", **{"shape": "gaussian"} | fields
    )


@pytest.fixture(scope="module")
def blobs():
    """Three clusters of different sizes, widths and slopes, far apart; and which of them made each point."""
    rng = np.random.default_rng(0)
    owner = rng.choice(3, 3000, p=[0.5, 0.3, 0.2])
    factor = np.array([[[0.5, 0], [0.3, 0.2]], [[0.2, 0], [-0.4, 0.6]], [[0.3, 0], [0, 0.3]]])
    z = np.array([[-3, 0], [3, 1], [0, 4]])[owner] + np.einsum("nij,nj->ni", factor[owner], rng.normal(size=(3000, 2)))
    return np.float32(z), owner


@pytest.mark.parametrize(("kind", "other"), [("full", "full"), ("diagonal", "diag")])
def test_em_finds_what_scikit_learn_finds(blobs, rng, kind, other):
    """The mean of log p: a maximum of the same likelihood, but for the pseudo-counts. Also where many steps lead to
    it: k-means does not see a narrow cluster inside a wide one."""
    nested = np.float32(rng.normal(size=(3000, 2)) * rng.choice([0.3, 2.0], (3000, 1)))
    for num, z, off in ((3, blobs[0], 2e-3), (2, nested, 1e-2)):  # its last steps, which EM leaves out, are small
        prior = prior_of(num, kind)
        params = fit_gaussians(0, prior, z)
        truth = GaussianMixture(num, covariance_type=other, random_state=0, tol=1e-6, max_iter=200).fit(z)
        assert abs(mean_log_prob(prior, params, z) - truth.score(z)) < 2e-3
        found = np.exp(params["logits"]) / np.exp(params["logits"]).sum()
        np.testing.assert_allclose(np.sort(found), np.sort(truth.weights_), atol=off)


def test_a_shared_map_whitens_what_all_clusters_have_in_common(rng):
    """Clusters of one covariance: the diagonal of the variances after U is 1, and nothing is left beside it."""
    factor = np.array([[1.0, 0], [0.8, 0.5]])
    z = np.float32(np.array([[-8, 0], [8, 3]])[rng.integers(0, 2, 4000)] + rng.normal(size=(4000, 2)) @ factor.T)
    prior = prior_of(2, "shared")
    params = fit_gaussians(0, prior, z)
    share, _ = expectation(prior, params, z)
    y = np.asarray(Compiled(prior.bind(params)).coordinates_of_clusters(z))[np.arange(4000), share.argmax(axis=1)]
    np.testing.assert_allclose(np.cov(y.T), np.eye(2), atol=5 / 4000**0.5)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=4 / 4000**0.5)


def test_clusters_of_a_class_are_fitted_to_its_data(blobs):
    z, owner = blobs
    label = np.int32(owner == 1)
    prior = prior_of(4, "full", num_classes=2)
    params = fit_gaussians(0, prior, z, label)
    share, log_p = expectation(prior, params, z, em.terms_of_labels(prior, label))
    np.testing.assert_array_equal(share[label == 0][:, 1::2], 0)
    bound = Compiled(prior.bind(params))
    np.testing.assert_allclose(log_p, bound.log_prob_with_class(z, label), rtol=1e-4, atol=1e-4)
    of_class = np.asarray(bound.log_class_probabilities(z)).argmax(axis=1)
    assert np.mean(of_class == label) > 0.999
    draws = np.asarray(bound.sample_of_class(KEY, np.ones(2000, int)))
    np.testing.assert_allclose(draws.mean(axis=0), z[label == 1].mean(axis=0), atol=0.1)


def test_classes_have_shapes_of_their_own_data(rng):
    """Of equal mean and variance, so that labels alone tell them apart, here those of two draws of each datum."""
    label = np.arange(3000) % 2
    z = np.where(label[:, None], rng.normal(size=(2, 3000, 1)), np.sqrt(3) * rng.uniform(-1, 1, (2, 3000, 1)))
    prior = prior_of(2, "diagonal", 1, shape="learned", grid_size=30, num_classes=2)
    _, params = kaem.fit_prior(KEY, z, prior, labels=label)
    log_p = Compiled(prior.bind(params)).log_prob_with_class(np.float32(z[0]), label)
    truth = np.log(0.5) + np.where(label, stats.norm.logpdf(z[0, :, 0]), -np.log(2 * np.sqrt(3)))
    assert abs(np.mean(truth - log_p)) < 0.04  # where shapes are mixed 0.09 are lost


def test_rows_go_through_in_parts(blobs, monkeypatch):
    z, _ = blobs
    prior = prior_of(3, "full")
    params = prior.init(jax.random.key(0))
    share, log_p = expectation(prior, params, z)
    whole = share, log_p, em.weighted_sums(share, z)
    monkeypatch.setattr(em, "_ROWS_AT_ONCE", 700)
    parts = *expectation(prior, params, z), em.weighted_sums(share, z)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), parts, whole)
    share, z = np.float64(share), np.float64(z)
    np.testing.assert_allclose(whole[2][2], np.einsum("nc,ni,nj->cij", share, z, z), rtol=1e-4, atol=1e-2)


def independent(rng, num):
    """A uniform, a bimodal and a Laplace coordinate, and log p."""
    x = np.stack(
        [rng.uniform(-1, 1, num), rng.choice([-2, 2], num) + 0.5 * rng.normal(size=num), rng.laplace(size=num)], 1
    )
    bimodal = 0.5 * (stats.norm(-2, 0.5).pdf(x[:, 1]) + stats.norm(2, 0.5).pdf(x[:, 1]))
    return x, np.log(0.5) + np.log(bimodal) + stats.laplace.logpdf(x[:, 2])


def divergences(prior, params):
    """KL(p || N(0, 1)) of the own coordinates of clusters, [C, Q] nats."""
    y = np.linspace(-5, 5, 2001)

    @jax.jit
    def log_ratios(params):
        return prior.bank.evaluate_all(params["bank"], y) - prior.bind(params).log_normalizer().T[..., None]

    log_ratio = np.asarray(log_ratios(params))
    return np.trapezoid(np.exp(log_ratio + stats.norm.logpdf(y)) * log_ratio, y)


@pytest.fixture(scope="module")
def rotated():
    """A rotation of independent coordinates, the rows, and what is fitted to them."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x = np.float32(independent(rng, 6000)[0] @ turn)
    return turn, x, *kaem.fit_prior(KEY, x, prior_of(1, "full", 3, shape="learned", grid_size=30))


def test_axes_and_shapes_of_rotated_coordinates(rotated, rng):
    """KL to the truth falls from 0.8 to below 0.1; the axes found are those of the data, in some order and sign."""
    turn, x, prior, params = rotated
    test, log_p = independent(rng, 6000)
    normal, test = dataclasses.replace(prior, shape="gaussian"), np.float32(test @ turn)
    plain = mean_log_prob(normal, fit_gaussians(0, normal, x), test)
    found = mean_log_prob(prior, params, test)
    assert log_p.mean() - plain > 0.6
    assert log_p.mean() - found < 0.1
    slope = jax.jit(jax.jacobian(lambda z: prior.bind(params).coordinates_of_clusters(z)[0]))(np.zeros(3, np.float32))
    axes = np.abs(np.asarray(slope) @ turn.T)
    assert np.all(np.sort(axes, axis=1)[:, -1] > 20 * np.sort(axes, axis=1)[:, -2])
    np.testing.assert_allclose(divergences(prior, params).sum(), found - plain, atol=0.05)  # the expected gain


def test_rotations_become_those_of_maximum_likelihood(rotated):
    """A third of a radian away from the axes of three coordinates, and back by a twentieth of it."""
    _, x, prior, params = rotated
    axes, off = np.asarray(params["rotation"][0]), np.array([[0, 0.2, -0.15], [-0.2, 0, 0.2], [0.15, -0.2, 0]])
    moved = params | {"rotation": np.float32(linalg.expm(off) @ axes)[None]}
    coefficients, share = np.asarray(params["bank"]["coefficients"]), np.ones((len(x), 1), np.float32)
    found = np.asarray(shapes._better_rotations(prior, moved, coefficients, x, share))[0]
    assert np.linalg.norm(found - axes) < 0.05 * np.linalg.norm(moved["rotation"][0] - axes)


def test_shapes_of_a_diagonal_map_are_in_its_units(rng):
    """Of coordinates of other scales, which a product by the wrong side would exchange."""
    scale = np.array([0.1, 10.0, 1.0])
    (x, _), (test, log_p) = independent(rng, 4000), independent(rng, 4000)
    prior = prior_of(1, "diagonal", 3, shape="learned", grid_size=30)
    _, params = kaem.fit_prior(KEY, x * scale, prior)
    assert log_p.mean() - mean_log_prob(prior, params, np.float32(test * scale)) < 0.1


def test_shapes_are_maxima_of_the_penalised_likelihood(rng):
    """At the maximum the mean of the basis functions is that of the data, but for the penalty."""
    features = np.stack([np.exp(-0.5 * (np.linspace(-5, 5, 200) - c) ** 2) for c in range(-4, 5)], axis=1)
    counts, log_mass = rng.poisson(5, (7, 200)).astype(float), stats.norm.logpdf(np.linspace(-5, 5, 200))
    smooth = shapes._maximum(counts, features, log_mass, 300.0, np.zeros((7, 9)))
    theta = shapes._maximum(counts, features, log_mass, 3.0, smooth)
    p = np.exp(theta @ features.T + log_mass)
    p /= p.sum(axis=1, keepdims=True)
    second = np.diff(np.eye(9), 2, axis=0)
    total = counts.sum(axis=1, keepdims=True)
    slope = total * (counts / total - p) @ features - 3.0 * theta @ second.T @ second
    np.testing.assert_allclose(slope, 1e-3 * theta, atol=1e-6 * total.max())


def test_what_is_normal_keeps_no_shape(rng):
    """Without the gate, the 12 coordinates of normal clusters would have several times as much."""
    z = np.float32(np.repeat([[-9.0], [9.0]], 1000, axis=0) + rng.normal(size=(2000, 6)))
    prior = prior_of(2, "full", 6, shape="learned")
    _, params = kaem.fit_prior(KEY, z, prior)
    assert np.mean(np.any(params["bank"]["coefficients"] != 0, axis=-1)) < 0.6
    assert divergences(prior, params).sum() < 0.015


@pytest.mark.slow
def test_the_size_is_chosen_on_held_out_rows(blobs, rng):
    z = blobs[0][:1000]
    prior, params = kaem.fit_prior(KEY, z)
    assert prior.num_clusters > 1
    truth = GaussianMixture(3, random_state=0).fit(z)
    assert mean_log_prob(prior, params, z) > truth.score(z) - 0.02
    prior, params = kaem.fit_prior(KEY, rng.normal(size=(2000, 2)))
    fresh = np.float32(rng.normal(size=(4000, 2)))
    assert stats.norm.logpdf(fresh).sum(axis=1).mean() - mean_log_prob(prior, params, fresh) < 0.02


def test_sizes_grow_until_two_gain_nothing():
    """Of each kind of maps afresh, and only those that so many rows can support."""
    worth, seen = {("full", 4): 1, ("diagonal", 1): 2}, []

    def chosen(num):
        seen.clear()
        best = choose(num, 1, lambda prior: seen.append(prior) or prior, value, np.inf)
        return best.map, best.num_clusters, [prior.num_clusters for prior in seen]

    def value(prior):
        return worth.get((prior.map, prior.num_clusters), 0)

    assert chosen(10_000) == ("diagonal", 1, [1, 4, 10, 25, 1, 10, 40])
    assert chosen(40) == ("diagonal", 1, [1, 4, 1])


def test_refusals(refuses):
    prior, z = prior_of(2, "diagonal"), np.zeros((20, 2))
    of_classes, labels = prior_of(2, "full", num_classes=2), np.zeros(20, int)
    for given, options, parts in (
        ((np.zeros(5),), {}, ["z has shape (5,)", "[N, Q]"]),
        ((z + np.nan, prior), {}, ["z has shape (20, 2)", "finite"]),
        ((np.zeros((20, 3)), prior), {}, ["z has 3 columns", "num_latents=2"]),
        ((z, prior), {"labels": labels}, ["they were", "num_classes=0"]),
        ((z, of_classes), {}, ["none were", "num_classes=2"]),
        ((z, of_classes), {"labels": labels[1:]}, ["labels has shape (19,)", "[20]"]),
        ((z, of_classes), {"labels": labels + 2}, ["the values [2]", "from 0 to 1"]),
        ((z, of_classes), {"labels": labels - 1}, ["the values [-1]", "from 0 to 1"]),
    ):
        with refuses(ValueError, *parts):
            kaem.fit_prior(KEY, *given, **options)


def test_refit_replaces_the_prior_alone(rng):
    """An exact linear model whose latents are bimodal: the new prior gives data their probability, a normal one not."""
    model = kaem.Model(
        kaem.ClusteredPrior(num_latents=1, num_clusters=1, shape="gaussian"), kaem.MLP(()), kaem.Gaussian(0.1), (2,)
    )
    params = model.init(jax.random.key(0))
    params["decoder"] = jax.tree.map(jnp.ones_like, params["decoder"])
    params["prior"] = params["prior"] | {"location": jnp.zeros((1, 1))}
    latent = rng.choice([-1.5, 1.5], (400, 1)) + 0.2 * rng.normal(size=(400, 1))
    x = np.float32(1 + latent + 0.1 * rng.normal(size=(400, 2)))
    frozen = FrozenSampler(kaem.Importance(num_samples=2000), (), 0)
    new = prior_of(2, "full", 1, shape="learned")
    better, fitted = kaem.refit(jax.random.key(2), model, params, x, frozen, new, num_draws=2)
    assert better.prior == new
    for name in ("decoder", "likelihood"):
        jax.tree.map(np.testing.assert_array_equal, fitted[name], params[name])
    codes = posterior_codes(KEY, model, params, x, frozen, 2)
    assert np.mean(codes[0] != codes[1]) > 0.9
    z = np.asarray(jax.jit(lambda key: new.bind(fitted["prior"]).sample(key, (4000,)))(KEY))[:, 0]
    for sign in (-1, 1):
        half = z[np.sign(z) == sign]
        assert abs(half.mean() - 1.5 * sign) < 0.05
        assert abs(half.std() - 0.2) < 0.04


def test_axes_are_rotations_where_fast_ica_returns_none():
    """Normal coordinates have no axes; here its matrix is 0.3 away from a rotation, and may be 1e24."""
    y = np.random.default_rng(46).normal(size=(25, 10)).astype(np.float32)
    prior = kaem.ClusteredPrior(num_latents=10, num_clusters=1, map="full", spread=0.0)
    params = prior.init(jax.random.key(0))
    [rotation] = np.asarray(shapes._rotations(46, prior, params, y - y.mean(axis=0), np.ones((25, 1), np.float32)))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(10), atol=1e-5)
    assert np.abs(rotation - np.eye(10)).max() > 0.1


def test_classes_count_in_the_second_stage(rng):
    """Each class has rows of both modes, so that without classes clusters would move to the modes."""
    label = np.arange(2400) % 2
    side = np.where(rng.uniform(size=2400) < 0.7, 2 * label - 1, 1 - 2 * label)
    z = np.float32(3 * side + rng.normal(size=2400))[:, None]
    prior = kaem.ClusteredPrior(num_latents=1, num_clusters=2, num_classes=2, map="diagonal", shape="gaussian")
    found = np.ravel(fit_gaussians(0, prior, z, label)["location"])
    np.testing.assert_allclose(found, [z[label == i].mean() for i in (0, 1)], atol=0.02)


def test_sizes_are_compared_on_the_held_out_tenth(rng, monkeypatch):
    module, z, seen = sys.modules["kaem_jax.priors.fit_prior"], np.float32(rng.normal(size=(100, 1))), []
    values = {"_fitted": lambda *_: {}, "mean_log_prob": lambda prior, params, rows: float(seen.append(rows) is None)}
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)
    kaem.fit_prior(KEY, z)
    few, _ = held_out_tenth(int(jax.random.bits(KEY)), 100)
    assert len(seen) > 1
    for rows in seen:
        np.testing.assert_array_equal(rows, z[few])
