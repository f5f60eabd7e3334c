"""The clustered prior: normalised, drawn exactly, cluster by cluster, with the marginals that it says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.kan.bases.rbf import RadialBasis
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.grid_update import update_grid
from tests.builders import make_prior, wild
from tests.truth import assert_within
from tests.truth import densities as exact_densities

BASES = ["gaussian", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uniform", "learnable_gaussian"))]


@pytest.fixture(scope="module", params=BASES)
def setting(request):
    """A prior over two latents whose clusters differ strongly, with learned proportions; and its table."""
    fields = {"num_latents": 2, "num_clusters": 3, "proportions": "learned", "grid_size": 6, "base_scale": 1.0}
    prior = kaem.ClusteredPrior(base_density=request.param, basis=RadialBasis(), **fields)
    params = wild(prior.init(jax.random.key(0)), 3.0) | {"logits": jnp.asarray([0.0, 1.0, -0.5])}
    return prior, params, prior.tabulate(params)


def densities(prior, params, z):
    """Each cluster's univariate densities at z [N], in float64: [N, Q, C]."""
    basis = "rbf" if prior.basis == RadialBasis() else "b_spline"
    rows = exact_densities(params, basis, 3, "identity", prior.base_density)
    return np.moveaxis([[component.pdf(z) for component in row] for row in rows], -1, 0)


@pytest.fixture(scope="module")
def truth(setting):
    prior, params, _ = setting
    low, high = prior.bounds or (-12.0, 12.0)
    z = np.linspace(low, high, 60_001)
    return z, densities(prior, params, z), special.softmax(np.asarray(params["logits"], np.float64))


def test_log_density_is_the_mixture_of_products(setting, truth, rng):
    prior, params, table = setting
    z, by_cluster, pi = truth
    points = rng.integers(5_000, 55_000, (200, 2))
    joint = by_cluster[points[:, 0], 0] * by_cluster[points[:, 1], 1]  # [N, C]
    at = jnp.asarray(z[points], jnp.float32)
    np.testing.assert_allclose(prior.log_prob(params, at), np.log(joint @ pi), atol=3e-4)
    np.testing.assert_allclose(prior.log_prob(params, at, table), np.log(joint @ pi), atol=3e-4)
    responsibilities = np.exp(prior.log_responsibilities(params, at, table))
    np.testing.assert_allclose(responsibilities, joint * pi / (joint @ pi)[:, None], atol=3e-4)


def test_marginals_are_univariate_mixtures(setting, truth):
    prior, _, table = setting
    z, by_cluster, pi = truth
    marginal = by_cluster @ pi  # [N, Q]
    cdf = np.concatenate(
        [np.zeros((1, 2)), np.cumsum(np.diff(z)[:, None] * (marginal[1:] + marginal[:-1]) / 2, axis=0)]
    )
    columns = jnp.broadcast_to(jnp.asarray(z[::100], jnp.float32)[:, None], (601, 2))
    np.testing.assert_allclose(prior.cdf(table, columns), cdf[::100], atol=3e-5)
    np.testing.assert_allclose(prior.density(table, columns)[1:-1], marginal[::100][1:-1], atol=3e-4)
    u = jnp.broadcast_to(jnp.linspace(0.01, 0.99, 601)[:, None], (601, 2))
    np.testing.assert_allclose(prior.cdf(table, prior.quantile(table, u)), u, atol=3e-6)


@pytest.mark.parametrize("points", ["random", pytest.param("sobol", marks=pytest.mark.slow)])
def test_draws_have_the_joint_law(setting, truth, points):
    """Cell by cell of a 4 x 4 grid of marginal quartiles: independence would fail, as the last lines show."""
    prior, _, table = setting
    z, by_cluster, pi = truth
    num = 2**15
    draws, cluster = prior.sample_with_cluster(jax.random.key(2), table, (num,), points)
    assert cluster.dtype == jnp.int32
    # A net has its share in each interval.
    error = np.sqrt(pi * (1 - pi) / num) if points == "random" else 0.5 / num
    assert_within(np.bincount(cluster, minlength=3) / num, pi, error, 4)
    np.testing.assert_array_equal(draws, prior.sample(jax.random.key(2), table, (num,), points))
    mass = np.diff(z)[:, None, None] * (by_cluster[1:] + by_cluster[:-1]) / 2
    of_marginal = np.cumsum(mass @ pi, axis=0)
    quartiles = np.array([np.interp([0.25, 0.5, 0.75], of_marginal[:, q], z[1:]) for q in range(2)])
    cells = [np.searchsorted(quartiles[q], np.asarray(draws)[:, q]) for q in range(2)]
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(cells), 1)
    cell_of = [np.searchsorted(quartiles[q], (z[1:] + z[:-1]) / 2) for q in range(2)]
    by_cell = [[np.bincount(cell_of[q], mass[:, q, c], minlength=4) for c in range(3)] for q in range(2)]
    wanted = np.einsum("c,ci,cj->ij", pi, *np.array(by_cell))
    assert stats.chisquare(counts.ravel(), num * wanted.ravel() / wanted.sum()).pvalue > 1e-3
    independent = np.outer(counts.sum(1), counts.sum(0)) / num
    assert stats.chisquare(counts.ravel(), independent.ravel()).pvalue < 1e-3


def test_draws_of_one_cluster(setting, truth):
    """Of one for each entry, all of one shape; the same key gives the same draws however they are asked for."""
    prior, _, table = setting
    z, by_cluster, _ = truth
    which = np.tile([2, 0], 4000)
    draws = prior.sample_of_cluster(jax.random.key(3), table, which, (8000,))
    for c, q in itertools.product((2, 0), range(2)):
        level = np.interp(np.asarray(draws)[which == c, q], z, np.cumsum(by_cluster[:, q, c]) * (z[1] - z[0]))
        assert stats.kstest(level, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(prior.sample_of_cluster(jax.random.key(3), table, which), draws)


@pytest.mark.slow
def test_a_grid_update_is_judged_by_the_cluster_that_changes_most():
    """Total variations of all six densities by quadrature; the new grid reaches the tails of every one of them."""
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3, grid_size=6, base_scale=1.0, domain=(-3.0, 3.0))
    params = wild(prior.init(jax.random.key(0)), 2.0)
    params["bank"]["coefficients"] *= jnp.asarray([0.05, 0.3, 1.0])[:, None]
    params["bank"]["base_weight"] = jnp.asarray([[-1.5, 0.0, 1.5], [1.5, 0.0, -1.5]])
    moved, info = update_grid(prior, params, max_total_variation=10.0)
    assert bool(jnp.all(info.accepted))
    z = np.linspace(-12, 12, 60_001)
    before, after = densities(prior, params, z), densities(prior, moved, z)
    distance = 0.5 * np.trapezoid(np.abs(before - after), z, axis=0)  # [Q, C]
    assert np.all(distance.max(axis=1) > 1.2 * distance.min(axis=1))
    np.testing.assert_allclose(info.total_variation, distance.max(axis=1), rtol=0.1)
    cdf = np.cumsum(before, axis=0) * (z[1] - z[0])
    grid = np.asarray(moved["bank"]["grid"]).reshape(2, -1)
    for q in range(2):
        low, high = ([np.interp(level, cdf[:, q, c], z) for c in range(3)] for level in (1e-4, 0.9999))
        np.testing.assert_allclose(grid[q, [0, -1]], [min(low), max(high)], atol=0.05)
    _, refused = update_grid(prior, params, max_total_variation=float(distance.max(axis=1).min()) / 2)
    assert not np.any(np.asarray(refused.accepted))


@pytest.fixture(scope="module")
def of_classes():
    """Clusters 0 and 2 belong to class 0, 1 and 3 to class 1. As many latents as clusters: see test_conditional.py."""
    prior = make_prior("clustered", 4, 4, basis="rbf", proportions="learned", num_classes=2, grid_size=3)
    params = wild(prior.init(jax.random.key(0)), 2.0) | {"logits": jnp.asarray([0.0, 1.0, -0.5, 0.3])}
    return prior, params, prior.tabulate(params)


def test_densities_of_classes_are_sums_over_their_clusters(of_classes, rng):
    prior, params, table = of_classes
    label = rng.integers(0, 2, 50)

    @jax.jit
    def found(z):
        joint = prior.log_responsibilities(params, z, table) + prior.log_prob(params, z, table)[..., None]
        return (
            joint,
            prior.log_prob_with_class(params, z, label, table),
            prior.log_class_probabilities(params, z, table),
        )

    joint, with_class, shares = map(np.float64, found(jnp.asarray(rng.normal(size=(3, 50, 4)), jnp.float32)))
    by_class = np.stack([np.logaddexp(joint[..., i], joint[..., i + 2]) for i in range(2)], axis=-1)
    np.testing.assert_allclose(with_class, np.where(label, by_class[..., 1], by_class[..., 0]), atol=1e-5)
    np.testing.assert_allclose(shares, by_class - special.logsumexp(by_class, axis=-1, keepdims=True), atol=1e-5)
    assert np.isfinite(joint).all()


def test_draws_of_a_class_are_of_its_clusters(of_classes):
    """Numbers below two points, class by class, of labels that alternate; without a shape one draw for each label."""
    prior, _, table = of_classes
    pi, label = np.exp(np.asarray(table.log_proportions, np.float64)), np.tile([0, 1, 1], 5000)
    draws = np.asarray(prior.sample_of_class(jax.random.key(1), table, label))
    assert draws.shape == (15_000, 4)
    for point in (-0.5, 0.4):
        at = np.full((4, 4), point, np.float32)
        below = np.asarray(jax.jit(inverse_transform.cdf, static_argnums=0)(prior.base, table.clusters, at))  # [C, Q]
        truth = [pi[c::2] @ below[c::2] / pi[c::2].sum() for c in range(2)]
        assert np.abs(truth[0] - truth[1]).max() > 0.1
        for i, chosen in enumerate((0, 1, 1)):
            assert_within(np.mean(draws[i::3] < point, axis=0), truth[chosen], 0.5 / 5000**0.5, 4)


def test_refusals(refuses, of_classes):
    prior, params, table = of_classes
    plain, key = kaem.ClusteredPrior(num_latents=2, num_clusters=2), jax.random.key(0)
    with refuses(ValueError, "num_classes=3", "num_clusters=4"):
        kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=3)
    refuses.each(
        *((lambda c=c: prior.sample_of_cluster(key, table, c, (2,)), ["cluster=", "0 to 3"]) for c in (4, -1, [0, 4])),
        (lambda: prior.sample_of_cluster(key, table, 1.5), ["cluster=1.5 must be an integer"]),
        (lambda: prior.sample_of_class(key, table, 2), ["label=2", "0 to 1"]),
        (lambda: prior.log_prob_with_class(params, jnp.zeros((1, 4)), jnp.asarray([2])), ["label=[2]", "0 to 1"]),
        (lambda: plain.sample_of_class(key, table, 0), ["belong to no classes"]),
        (lambda: kaem.NonCentredPrior(plain), ["centred=ClusteredPrior(", "must be a ProductPrior or MixturePrior"]),
        (lambda: kaem.ComonotonePrior(plain), ["centred=ClusteredPrior(", "must be a ProductPrior"]),
    )


@pytest.mark.slow
def test_derivatives_of_rows_are_those_of_the_table(setting):
    """A quantile by row has the derivative of the same quantile in the full table."""
    prior, _, table = setting
    u = jnp.asarray([[0.2, 0.7], [0.99, 0.4], [0.05, 0.5]])
    row = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)

    @jax.jit
    def derivatives(table, u):
        tangents = jax.tree.map(jnp.ones_like, (table, u))
        by_row, whole = (lambda t, u, row=row: inverse_transform.quantile(prior.base, t, u, row) for row in (row, None))
        return jax.jvp(by_row, (table, u), tangents), jax.jvp(whole, (table, u), tangents)

    for found, expected in zip(*derivatives(table.clusters, u), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert np.isfinite(expected).all()
