"""The density of a table against closed forms: gaps, categories, and expectation maximisation with both."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.kan.bases.rbf import RadialBasis
from kaem_jax.tables import mixture
from kaem_jax.tables.density import Rows, mean_weight
from kaem_jax.tables.mixture import TableMixture, fit_mixture
from tests.builders import Compiled, wild
from tests.truth import assert_within

C, Q = 3, 4


def normal_prior(kind, rng):
    prior = kaem.ClusteredPrior(num_latents=Q, num_clusters=C, map=kind, shape="gaussian", proportions="learned")
    shapes = jax.eval_shape(prior.init, jax.random.key(0))
    return prior, {name: rng.normal(0, 0.3 if name == "log_scale" else 1, leaf.shape) for name, leaf in shapes.items()}


def moments(prior, params):
    """Means and covariances of the clusters from draws of none: the density's own derivatives, float64."""

    @jax.jit
    def derivatives(params, z):
        log_joint = prior.bind(params).log_joint
        return jax.jacobian(log_joint)(z), jax.hessian(log_joint)(z)

    slope, curvature = derivatives(params, np.zeros(Q))
    covariance = np.linalg.inv(-np.asarray(curvature))
    return np.einsum("cij,cj->ci", covariance, slope), covariance


@pytest.mark.parametrize("kind", ["full", "shared", "diagonal"])
def test_normal_distributions_given_what_is_known(x64, rng, kind):
    """Against the textbook's block formulas, for every pattern of gaps."""
    prior, params = normal_prior(kind, rng)
    means, covariances = moments(prior, params)
    log_share = special.log_softmax(params["logits"])
    z = rng.normal(size=(2**Q, Q))
    z[(np.arange(2**Q)[:, None] >> np.arange(Q)) % 2 == 1] = np.nan
    given = jax.device_get(mixture._conditionals(prior, params, z))
    for row, log_joint, mean, covariance in zip(z, *given, strict=True):
        known = ~np.isnan(row)
        for c, (m, s) in enumerate(zip(means, covariances, strict=True)):
            own = s[np.ix_(known, known)]
            gain = s[:, known] @ np.linalg.inv(own)
            log_p = stats.multivariate_normal(m[known], own).logpdf(row[known]) if known.any() else 0
            np.testing.assert_allclose(log_joint[c], log_share[c] + log_p, atol=1e-7)
            np.testing.assert_allclose(mean[c], m + gain @ (row[known] - m[known]), atol=1e-7)
            np.testing.assert_allclose(covariance[c], s - gain @ s[known], atol=1e-7)


def test_the_density_of_what_is_known_is_unbiased_and_draws_follow_it(rng, monkeypatch):
    """With shapes: the marginal of one number is a univariate mixture that a prior with diagonal maps knows exactly.

    Full maps without shear or rotation say the same, and must estimate it.
    """
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=C, grid_size=6, basis=RadialBasis())
    params = wild(prior.init(jax.random.key(0)), 1.0)
    full = dataclasses.replace(prior, map="full")
    of_full = full.init(jax.random.key(0)) | params
    normal = {name: leaf for name, leaf in of_full.items() if name not in ("bank", "rotation")}
    density = TableMixture(full, of_full, normal, ())
    known = np.float32([-2, -1, 0, 1, 2, np.nan])
    rows = Rows(np.stack([known, np.full(6, np.nan, np.float32)], axis=1), np.zeros((6, 0), int))
    bound = Compiled(prior.bind(params))
    exact = np.append(np.asarray(bound.density(np.stack([known, known], axis=1)[:5]))[:, 0], 1)
    ratio = np.stack([np.exp(density.log_prob(seed, rows)) / exact for seed in range(100)], axis=1)
    assert_within(ratio.mean(axis=1), 1, ratio.std(axis=1) / 100**0.5 + 1e-5, 4.5)
    np.testing.assert_allclose(ratio[5], 1, rtol=1e-6)  # nothing is known
    backwards = density.log_prob(0, rows[::-1])[::-1]
    np.testing.assert_allclose(backwards, density.log_prob(0, rows), rtol=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(mixture, "_ENTRIES_AT_ONCE", 4 * C * 2**2)  # four rows at once
        np.testing.assert_allclose(density.log_prob(0, rows), backwards, rtol=1e-5)
    gaussian = np.exp(TableMixture(mixture._normal(full), normal, normal, ()).log_prob(0, rows)) / exact
    assert np.max(np.abs(gaussian - 1)) > 0.1  # the correction matters
    diagonal = TableMixture(prior, params, {}, ())
    np.testing.assert_allclose(np.exp(diagonal.log_prob(0, rows)), exact, rtol=1e-4)
    theta = (np.log(rng.dirichlet(np.ones(2), C)),)  # a category that tells clusters apart, with each row its own
    sampled, closed = (TableMixture(*of, theta) for of in ((full, of_full, normal), (prior, params, {})))
    rows = Rows(rows.z, np.arange(6)[:, None] % 2)
    ratio = np.exp(np.stack([sampled.log_prob(seed, rows) for seed in range(100)]) - closed.log_prob(0, rows))
    assert_within(ratio.mean(axis=0), 1, ratio.std(axis=0) / 100**0.5 + 1e-5, 4.5)
    z = np.asarray(bound.part.sample(jax.random.key(1), 2000))
    rows = Rows(np.where([True, False], z, np.nan).astype(np.float32), np.zeros((2000, 0), int))
    for one in (density, diagonal):
        filled, _ = one.fill(0, rows, 1)
        np.testing.assert_array_equal(filled[0, :, 0], z[:, 0])
        level = np.asarray(bound.cdf(filled[0]))[:, 1]
        assert stats.kstest(level, "uniform").pvalue > 1e-3
        # And with the other number: covariances of gaps' draws with what is known are those of complete rows.
        products, theirs = filled[0].prod(axis=1), z.prod(axis=1)
        error = np.hypot(products.std(), theirs.std()) / 2000**0.5
        assert_within(products.mean(), theirs.mean(), error, 4.5)


def test_categories_add_up_and_say_which_cluster_it_is(rng):
    """Over all categories, with and without the number, against sums by hand."""
    prior = kaem.ClusteredPrior(num_latents=1, num_clusters=2, shape="gaussian", proportions="learned")
    params = prior.init(jax.random.key(0)) | {"logits": jnp.asarray([0.0, 1.0])}
    theta = [rng.dirichlet(np.ones(size), 2) for size in (2, 3)]
    density = TableMixture(prior, params, params, tuple(np.log(part) for part in theta))
    share, z = special.softmax([0.0, 1.0]), np.float32([[0.3]])
    of_z = np.exp(np.asarray(Compiled(prior.bind(params)).log_joint(z))[0])
    for number, weight in ((z, of_z), (np.full((1, 1), np.nan, np.float32), share)):
        found = {}
        for codes in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1, 2)]:
            known = [part[:, code] if code >= 0 else np.ones(2) for part, code in zip(theta, codes, strict=True)]
            found[codes] = np.exp(density.log_prob(0, Rows(number, np.array([codes]))))[0]
            np.testing.assert_allclose(found[codes], np.sum(weight * known[0] * known[1]), rtol=1e-5)
        np.testing.assert_allclose(sum(found[i, j] for i in (0, 1) for j in (0, 1, 2)), found[-1, -1], rtol=1e-5)
    rows = Rows(np.full((20_000, 1), 0.3, np.float32), np.tile([[1, -1]], (20_000, 1)))
    _, codes = density.fill(0, rows, 1)
    assert np.all(codes[0, :, 0] == 1)
    expected = (of_z * theta[0][:, 1]) @ theta[1]
    expected /= expected.sum()
    counts = np.bincount(codes[0, :, 1], minlength=3) / 20_000
    assert_within(counts, expected, np.sqrt(expected * (1 - expected) / 20_000), 4.5)


def test_a_fit_with_gaps_and_categories_finds_the_mixture_that_made_them(rng):
    """Two clusters far apart in nothing but a category and a correlation; a fifth of the cells is missing."""
    num = 6000
    cluster = rng.integers(2, size=num)
    x = rng.normal(size=(num, 2))
    x[:, 1] = np.where(cluster == 0, 0.9, -0.9) * x[:, 0] + 0.436 * x[:, 1]
    codes = np.where(rng.random((num, 1)) < 0.95, cluster[:, None], 1 - cluster[:, None])
    z = np.where(rng.random(x.shape) < 0.2, np.nan, x).astype(np.float32)
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=2, map="full", shape="gaussian", proportions="learned")
    rows = Rows(z, np.where(rng.random((num, 1)) < 0.2, -1, codes))
    density = fit_mixture(0, rows[1000:], rows[:1000], (2,), prior)
    fresh = Rows(np.float32(x[:1000]), codes[:1000])

    def truth(sign, share):
        return stats.multivariate_normal([0, 0], [[1, sign * 0.9], [sign * 0.9, 1]]).pdf(fresh.z) * share / 2

    likely = np.where(codes[:1000, 0] == 0, 0.95, 0.05)
    expected = np.log(truth(1, likely) + truth(-1, 1 - likely))
    loss = expected - density.log_prob(0, fresh)
    assert abs(loss.mean()) < 0.01 + 4.5 * loss.std() / 1000**0.5
    assert loss.std() < 0.15


def test_without_a_prior_one_is_chosen_by_fits_to_the_rows(rng, monkeypatch):
    """Their worth is the mean of log p of held-out rows."""
    rows = Rows(rng.normal(size=(60, 2)).astype(np.float32), np.zeros((60, 0), int))
    given = []
    monkeypatch.setattr(mixture, "choose", lambda *arguments: given.extend(arguments))
    assert fit_mixture(0, rows[20:], rows[:20], (), seconds=3) is None
    num, size, fit, value, seconds = given
    assert (num, size, seconds) == (40, 2, 3)
    found = fit(kaem.ClusteredPrior(num_latents=2, num_clusters=1, shape="gaussian"))
    normal = stats.multivariate_normal(rows.z[20:].mean(axis=0), np.diag(rows.z[20:].var(axis=0)))
    assert value(found) == pytest.approx(normal.logpdf(rows.z[:20]).mean(), abs=1e-3)


@pytest.mark.slow
def test_the_kind_and_number_of_clusters_are_chosen_on_held_out_rows(rng):
    """Three clusters apart, of a thousand rows; a table without gaps keeps its rows."""
    z = np.float32(rng.normal(size=(1000, 2)) * 0.3 + rng.choice([-3.0, 0.0, 3.0], (1000, 1)))
    rows = Rows(z, np.zeros((1000, 0), int))
    density = fit_mixture(0, rows[200:], rows[:200], (), seconds=5)
    assert density.prior.num_clusters >= 3
    filled, _ = density.fill(0, rows, 2)
    np.testing.assert_array_equal(filled, np.stack([z, z]))
    expected = np.log(sum(stats.multivariate_normal([m, m], 0.09).pdf(z) for m in (-3, 0, 3)) / 3)
    assert expected.mean() - 0.1 < density.log_prob(0, rows).mean() < expected.mean() + 0.1
    assert dataclasses.replace(density.prior, shape="gaussian").num_latents == 2


@pytest.mark.slow
def test_rows_with_gaps_do_not_wait_for_ever():
    """With two threads, as in a process of its own: two solves at once on many small matrices would never end."""
    program = """
import jax, numpy as np
from kaem_jax.tables import mixture
from kaem_jax.priors import ClusteredPrior
prior = ClusteredPrior(num_latents=21, num_clusters=4, map="full", proportions="learned", shape="gaussian")
z = np.random.default_rng(0).normal(size=(3000, 21)).astype(np.float32)
z[np.random.default_rng(1).random(z.shape) < 0.2] = np.nan
for _ in range(10):
    _, value = mixture._sums_with_gaps(prior, prior.init(jax.random.key(0)), z, np.zeros((3000, 1)))[1:]
assert np.isfinite(value)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XLA", "JAX"))}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment | {"JAX_PLATFORMS": "cpu"})


def test_the_error_of_a_mean_weight(rng):
    weight = rng.exponential(size=(400, 3))
    value, error = mean_weight(np.log(weight))
    np.testing.assert_allclose(value, np.log(weight.mean(axis=0)))
    np.testing.assert_allclose(error, weight.std(axis=0, ddof=1) / weight.mean(axis=0) / 20)
