"""The clustered prior: normalised, drawn exactly, cluster by cluster, with the marginals that it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.priors import inverse_transform
from kaem_jax.priors.grid_update import update_grid
from tests.truth import densities as exact_densities

NUM_CLUSTERS = 3


@pytest.fixture(scope="module", params=["gaussian", "uniform", "learnable_gaussian"])
def setting(request):
    """A prior over two latents whose clusters differ strongly, with learned proportions."""
    prior = kaem.ClusteredPrior(
        num_latents=2,
        num_clusters=NUM_CLUSTERS,
        base_density=request.param,
        proportions="learned",
        grid_size=6,
        base_scale=1.0,
    )
    params = prior.init(jax.random.key(0))
    shape = params["bank"]["coefficients"].shape
    params["bank"]["coefficients"] = jax.random.uniform(jax.random.key(1), shape, minval=-2.0, maxval=2.0)
    params["logits"] = jnp.asarray([0.0, 1.0, -0.5])
    return prior, params


def densities(prior, params, z):
    """Each cluster's univariate densities at z [N], in float64: [N, Q, C]."""
    rows = exact_densities(params, "b_spline", 3, "identity", prior.base_density)
    return np.moveaxis([[component.pdf(z) for component in row] for row in rows], -1, 0)


@pytest.fixture(scope="module")
def truth(setting):
    prior, params = setting
    low, high = prior.bounds or (-12.0, 12.0)
    z = np.linspace(low, high, 60_001)
    return z, densities(prior, params, z), special.softmax(np.asarray(params["logits"], np.float64))


def test_log_density_is_the_mixture_of_products(setting, truth, rng):
    prior, params = setting
    z, by_cluster, pi = truth
    points = rng.integers(5_000, 55_000, (200, 2))
    joint = by_cluster[points[:, 0], 0] * by_cluster[points[:, 1], 1]  # [N, C]
    found = prior.log_prob(params, jnp.asarray(z[points], jnp.float32))
    np.testing.assert_allclose(found, np.log(joint @ pi), atol=3e-4)
    responsibilities = np.exp(prior.log_responsibilities(params, jnp.asarray(z[points], jnp.float32)))
    np.testing.assert_allclose(responsibilities, joint * pi / (joint @ pi)[:, None], atol=3e-4)
    table = prior.tabulate(params)
    np.testing.assert_allclose(prior.log_prob(params, jnp.asarray(z[points], jnp.float32), table), found, atol=1e-5)


def test_marginals_are_univariate_mixtures(setting, truth):
    prior, params = setting
    z, by_cluster, pi = truth
    marginal = by_cluster @ pi  # [N, Q]
    cdf = np.concatenate(
        [np.zeros((1, 2)), np.cumsum(np.diff(z)[:, None] * (marginal[1:] + marginal[:-1]) / 2, axis=0)]
    )
    columns = jnp.broadcast_to(jnp.asarray(z[::100], jnp.float32)[:, None], (len(z[::100]), 2))
    table = prior.tabulate(params)
    np.testing.assert_allclose(prior.cdf(table, columns), cdf[::100], atol=3e-5)
    np.testing.assert_allclose(prior.density(table, columns)[1:-1], marginal[::100][1:-1], atol=3e-4)
    u = jnp.asarray([[0.01, 0.3], [0.5, 0.9]])
    np.testing.assert_allclose(prior.cdf(table, prior.quantile(table, u)), u, atol=3e-6)


@pytest.mark.parametrize("points", ["random", "sobol"])
def test_draws_have_the_joint_law(setting, truth, points):
    """Cell by cell of a 4 x 4 grid of marginal quartiles: independence would fail, as the last lines show."""
    prior, params = setting
    z, by_cluster, pi = truth
    num = 2**15
    table = prior.tabulate(params)
    draws, cluster = prior.sample_with_cluster(jax.random.key(2), table, (num,), points)
    assert cluster.dtype == jnp.int32
    within = 4 * 0.5 / num**0.5 if points == "random" else 2 / num  # a net has its share in each interval
    np.testing.assert_allclose(np.bincount(cluster, minlength=3) / num, pi, atol=within)
    np.testing.assert_array_equal(draws, prior.sample(jax.random.key(2), table, (num,), points))
    quartiles = np.asarray(prior.quantile(table, jnp.asarray([[0.25] * 2, [0.5] * 2, [0.75] * 2])), np.float64)
    cells = [np.searchsorted(quartiles[:, q], np.asarray(draws)[:, q]) for q in range(2)]
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(cells), 1)
    mass = np.diff(z)[:, None, None] * (by_cluster[1:] + by_cluster[:-1]) / 2
    cell_of = [np.searchsorted(quartiles[:, q], (z[1:] + z[:-1]) / 2) for q in range(2)]
    by_cell = np.stack(
        [[np.bincount(cell_of[q], mass[:, q, c], minlength=4) for c in range(3)] for q in range(2)]
    )  # [Q, C, 4]
    wanted = np.einsum("c,ci,cj->ij", pi, *by_cell)
    assert stats.chisquare(counts.ravel(), num * wanted.ravel() / wanted.sum()).pvalue > 1e-3
    independent = np.outer(counts.sum(1), counts.sum(0)) / num
    assert stats.chisquare(counts.ravel(), independent.ravel()).pvalue < 1e-6


def test_draws_of_one_cluster(setting, truth):
    prior, params = setting
    z, by_cluster, _ = truth
    table = prior.tabulate(params)
    which = jnp.asarray([2, 0])
    draws = prior.sample_of_cluster(jax.random.key(3), table, jnp.tile(which, 4000), (8000,))
    for i, c in enumerate([2, 0]):
        for q in range(2):
            level = np.interp(np.asarray(draws)[i::2, q], z, np.cumsum(by_cluster[:, q, c]) * (z[1] - z[0]))
            assert stats.kstest(level, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(
        prior.sample_of_cluster(jax.random.key(3), table, which),
        prior.sample_of_cluster(jax.random.key(3), table, which, 2),
    )
    same = prior.sample_of_cluster(jax.random.key(3), table, 1, (5,))
    assert same.shape == (5, 2)


@pytest.mark.slow
def test_many_draws_are_those_of_few(setting, monkeypatch):
    """More than so many values go through in parts."""
    monkeypatch.setattr(inverse_transform, "_MAX_VALUES_AT_ONCE", 1200)
    prior, params = setting
    table = prior.tabulate(params)
    u = jax.random.uniform(jax.random.key(4), (2500, 2))
    cluster = jnp.arange(2500) % NUM_CLUSTERS
    parts = [prior._invert(table, cluster[i : i + 500], u[i : i + 500]) for i in range(0, 2500, 500)]
    np.testing.assert_allclose(prior._invert(table, cluster, u), jnp.concatenate(parts), atol=1e-6)


def test_one_cluster_is_a_product():
    prior = kaem.ClusteredPrior(num_latents=3, num_clusters=1)
    params = prior.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (50, 3))
    product = kaem.ProductPrior(num_latents=3, base_activation="identity", domain=prior.domain, grid_size=10)
    np.testing.assert_allclose(prior.log_prob(params, z), product.log_prob(params, z[..., None]), atol=1e-5)


@pytest.mark.slow
def test_gradients_are_finite_differences(x64):
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=2, proportions="learned", grid_size=4)
    params = prior.init(jax.random.key(0))
    z = jnp.asarray([[0.3, -1.2], [2.0, 0.1]])
    check_grads(lambda p: prior.log_prob(params | p, z), ({"logits": params["logits"]},), 1, eps=1e-5)
    coefficients = params["bank"]["coefficients"]
    check_grads(
        lambda c: prior.log_prob(params | {"bank": params["bank"] | {"coefficients": c}}, z),
        (coefficients,),
        1,
        eps=1e-5,
    )
    check_grads(lambda z: prior.log_prob(params, z), (z,), 1, eps=1e-5)


@pytest.mark.slow
def test_a_grid_update_keeps_the_density():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3, grid_size=12)
    params = prior.init(jax.random.key(0))
    moved, info = update_grid(prior, params)
    assert bool(jnp.all(info.accepted))
    assert np.any(np.asarray(moved["bank"]["grid"]) != np.asarray(params["bank"]["grid"]))
    z = jax.random.normal(jax.random.key(1), (100, 2))
    np.testing.assert_allclose(prior.log_prob(moved, z), prior.log_prob(params, z), atol=0.03)


@pytest.mark.slow
def test_a_grid_update_is_judged_by_the_cluster_that_changes_most():
    """Total variations of all six densities by quadrature; the new grid reaches the tails of every one of them."""
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3, grid_size=6, base_scale=1.0, domain=(-3.0, 3.0))
    params = prior.init(jax.random.key(0))
    coefficients = params["bank"]["coefficients"]
    wild = jax.random.uniform(jax.random.key(1), coefficients.shape, minval=-2.0, maxval=2.0)
    params["bank"]["coefficients"] = wild * jnp.asarray([0.05, 0.3, 1.0])[:, None]
    shifts = jnp.asarray([[-1.5, 0.0, 1.5], [1.5, 0.0, -1.5]])
    params["bank"]["base_weight"] = shifts
    moved, info = update_grid(prior, params, max_total_variation=10.0)
    assert bool(jnp.all(info.accepted))
    z = np.linspace(-12, 12, 60_001)
    before, after = densities(prior, params, z), densities(prior, moved, z)
    distance = 0.5 * np.trapezoid(np.abs(before - after), z, axis=0)  # [Q, C]
    assert np.all(distance.max(axis=1) > 1.5 * distance.min(axis=1))
    np.testing.assert_allclose(info.total_variation, distance.max(axis=1), rtol=0.1)
    cdf = np.cumsum(before, axis=0) * (z[1] - z[0])
    ends = [
        np.array([np.interp(level, cdf[:, q, c], z) for c in range(3)]) for q in range(2) for level in (1e-4, 0.9999)
    ]
    grid = np.asarray(moved["bank"]["grid"]).reshape(2, -1)
    for q in range(2):
        assert grid[q, 0] == pytest.approx(ends[2 * q].min(), abs=0.05)
        assert grid[q, -1] == pytest.approx(ends[2 * q + 1].max(), abs=0.05)
    _, refused = update_grid(prior, params, max_total_variation=float(distance.max(axis=1).min()) / 2)
    assert not np.any(np.asarray(refused.accepted))


def test_clusters_that_start_alike_stay_alike():
    """Why the start must break the symmetry: without differences the gradients of all clusters are equal."""
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3, coefficient_scale=0.0, base_scale=0.0)
    params = prior.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (20, 2)) + 1
    gradient = jax.grad(lambda p: jnp.sum(prior.log_prob(p, z)))(params)["bank"]["coefficients"]
    np.testing.assert_allclose(gradient[:, 0], gradient[:, 1], atol=1e-5)
    assert np.abs(np.asarray(gradient)).max() > 0.1


def test_refusals(refuses):
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=2)
    table = prior.tabulate(prior.init(jax.random.key(0)))
    for cluster in (2, -1, jnp.asarray([0, 2])):
        with refuses(ValueError, "cluster=", "from 0 to 1"):
            prior.sample_of_cluster(jax.random.key(0), table, cluster, (2,))
    with refuses(ValueError, "cluster=1.5 must be an integer"):
        prior.sample_of_cluster(jax.random.key(0), table, 1.5)
    for wrapper, allowed in (
        (kaem.NonCentredPrior, "ProductPrior or MixturePrior"),
        (kaem.ComonotonePrior, "ProductPrior"),
    ):
        with refuses(ValueError, "centred=ClusteredPrior(", f"must be a {allowed}"):
            wrapper(prior)


@pytest.mark.slow
def test_clusters_of_classes(rng):
    """Clusters 0 and 2 belong to class 0, 1 and 3 to class 1: sums over them, and draws of them only."""
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, proportions="learned", num_classes=2)
    params = prior.init(jax.random.key(0)) | {"logits": jnp.asarray([0.0, 1.0, -0.5, 0.3])}
    z = jnp.asarray(rng.normal(size=(3, 50, 2)), jnp.float32)
    joint = prior.log_responsibilities(params, z) + prior.log_prob(params, z)[..., None]
    by_class = jnp.stack([jnp.logaddexp(joint[..., i], joint[..., i + 2]) for i in range(2)], axis=-1)
    label = jnp.asarray(rng.integers(0, 2, 50))
    expected = jnp.take_along_axis(by_class, jnp.broadcast_to(label[:, None], (3, 50, 1)), axis=-1)[..., 0]
    np.testing.assert_allclose(prior.log_prob_with_class(params, z, label), expected, atol=1e-5)
    shares = prior.log_class_probabilities(params, z)
    np.testing.assert_allclose(shares, by_class - prior.log_prob(params, z)[..., None], atol=1e-5)

    table = prior.tabulate(params)
    pi = np.exp(np.asarray(table.log_proportions, np.float64))
    for chosen, members in ((0, [0, 2]), (1, [1, 3])):
        draws = prior.sample_of_class(jax.random.key(1), table, chosen, (20_000,))
        share = np.zeros(4)
        share[members] = pi[members] / pi[members].sum()
        for q in range(2):
            for point in (-0.5, 0.4):
                rows = jnp.full((4, 2), point)
                below = np.asarray(_cdf_of_clusters(prior, table, rows, q)) * share
                found = np.mean(np.asarray(draws)[:, q] < point)
                assert found == pytest.approx(below.sum(), abs=4 * 0.5 / 20_000**0.5)
    label = jnp.tile(jnp.asarray([0, 1, 1]), 5000)
    mixed = np.asarray(prior.sample_of_class(jax.random.key(2), table, label, label.shape))
    for i, chosen in enumerate((0, 1, 1)):
        alone = np.asarray(prior.sample_of_class(jax.random.key(3), table, chosen, (5000,)))
        assert stats.ks_2samp(mixed[i::3, 0], alone[:, 0]).pvalue > 1e-3
    assert stats.ks_2samp(mixed[0::3, 0], mixed[1::3, 0]).pvalue < 1e-6


def _cdf_of_clusters(prior, table, z, q):
    """[C] probabilities below z[c, q] in cluster c."""
    row = jnp.arange(4) * 2 + q
    return inverse_transform.cdf(prior.base, table.clusters, z[:, q], row)


def test_refusals_of_classes(refuses):
    with refuses(ValueError, "num_classes=3", "num_clusters=4"):
        kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=3)
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=2)
    table = prior.tabulate(prior.init(jax.random.key(0)))
    with refuses(ValueError, "label=2", "0 to 1"):
        prior.sample_of_class(jax.random.key(0), table, 2)
    with refuses(ValueError, "label=[2]", "0 to 1"):
        prior.log_prob_with_class(prior.init(jax.random.key(0)), jnp.zeros((1, 2)), jnp.asarray([2]))
    plain = kaem.ClusteredPrior(num_latents=2, num_clusters=4)
    with refuses(ValueError, "belong to no classes"):
        plain.sample_of_class(jax.random.key(0), table, 0)


def test_derivatives_of_rows_are_those_of_the_table(setting):
    """A quantile by row has the derivative of the same quantile in the full table."""
    prior, params = setting
    table = prior.tabulate(params)
    u = jnp.asarray([[0.2, 0.7], [0.99, 0.4], [0.05, 0.5]])
    row = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)

    def by_row(table, u):
        return inverse_transform.quantile(prior.base, table, u, row)

    def whole(table, u):
        return inverse_transform.quantile(prior.base, table, u)

    tangents = jax.tree.map(jnp.ones_like, (table.clusters, u))
    for found, expected in zip(
        jax.jvp(by_row, (table.clusters, u), tangents), jax.jvp(whole, (table.clusters, u), tangents), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
