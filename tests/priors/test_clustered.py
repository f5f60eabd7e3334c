"""The clustered prior: normalised, drawn exactly, cluster by cluster, each in its own axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.kan.bases.rbf import RadialBasis
from kaem_jax.priors import affine, bound_clusters
from tests.builders import Compiled, make_prior, wild
from tests.truth import assert_within
from tests.truth import densities as exact_densities

MAPS = ("diagonal", "shared", "full")
C, Q = 3, 2


def matrices(prior, params):
    """W [C, Q, Q] and the latents of y = 0 [C, Q] in float64, by the formulas of the method."""
    own = {name: np.asarray(value, np.float64) for name, value in params.items() if name != "bank"}
    size, scale = prior.num_latents, np.exp(own["log_scale"])
    unit = np.tril(own.get("lower", np.zeros((size, size))), -1) / size**0.5 + np.eye(size)
    w = scale[:, :, None] * unit
    w = own.get("rotation", np.eye(size)) @ w
    shared = prior.map == "shared"
    return w, np.linalg.solve(unit, own["location"].T).T if shared else own["location"]


def wild_clusters(kind, shape="learned"):
    """A prior whose clusters differ strongly in place, scale, axes and shape."""
    rng = np.random.default_rng(0)
    prior = kaem.ClusteredPrior(
        num_latents=Q, num_clusters=C, map=kind, shape=shape, basis=RadialBasis(), grid_size=6, proportions="learned"
    )
    shapes = jax.eval_shape(prior.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.float32(rng.uniform(0.5, 1.5, leaf.shape)), shapes)
    params = wild(params, 2.0) if shape == "learned" else params
    for name, size in (("location", 1.5), ("log_scale", 0.4), ("lower", 2)):
        if name in params:
            params[name] = np.float32(rng.normal(0, size, params[name].shape))
    if "rotation" in params:
        params["rotation"] = np.float32(np.linalg.qr(rng.normal(size=(C, Q, Q)))[0])
    return prior, params | {"logits": np.float32([0.0, 1.0, -0.5])}


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "shared")) for kind in MAPS]
)
def setting(request):
    prior, params = wild_clusters(request.param)
    return prior, params, prior.bind(params)


def components(prior, params):
    """The densities of each cluster's own coordinates in float64, [C][Q]."""
    return exact_densities({"bank": params["bank"], "base": {}}, prior.bank, "rbf", 3, "none", "gaussian")


def log_joint(prior, params, z):
    """Log p(z, c) of latents [N, Q] in float64, [N, C]."""
    w, origin = matrices(prior, params)
    log_pi = special.log_softmax(np.asarray(params["logits"], np.float64))
    parts = []
    for c, row in enumerate(components(prior, params)):
        y = (z - origin[c]) @ w[c].T
        log_density = sum(np.log(row[q].pdf(y[:, q])) for q in range(Q))
        parts.append(log_pi[c] + np.log(abs(np.linalg.det(w[c]))) + log_density)
    return np.stack(parts, axis=1)


def test_log_density_is_the_mixture_of_products(setting, rng):
    prior, params, bound = setting
    z = np.float32(rng.normal(0, 2, (300, Q)))
    truth = log_joint(prior, params, np.float64(z))
    total = special.logsumexp(truth, axis=1)
    np.testing.assert_allclose(bound.log_prob(z), total, atol=3e-4)
    share = np.exp(Compiled(bound).log_responsibilities(z))
    np.testing.assert_allclose(share, np.exp(truth - total[:, None]), atol=3e-4)


@pytest.mark.parametrize("kind", MAPS)
def test_without_shapes_it_is_a_gaussian_mixture(kind, rng):
    """Log p of scipy's normal distributions; a rotation changes nothing, and there is none."""
    prior, params = wild_clusters(kind, "gaussian")
    assert "rotation" not in params
    assert "bank" not in params
    w, origin = matrices(prior, params)
    z = np.float32(rng.normal(0, 2, (300, Q)))
    log_pi = special.log_softmax(np.asarray(params["logits"], np.float64))
    normals = [stats.multivariate_normal(m, np.linalg.inv(w.T @ w)) for m, w in zip(origin, w, strict=True)]
    truth = special.logsumexp([p + law.logpdf(z) for p, law in zip(log_pi, normals, strict=True)], axis=0)
    np.testing.assert_allclose(prior.bind(params).log_prob(z), truth, atol=1e-5)
    draws = np.asarray(prior.bind(params).sample_of_cluster(jax.random.key(0), 1, (20_000,)))
    assert_within(draws.mean(axis=0), origin[1], np.sqrt(np.diag(normals[1].cov) / 20_000), 4)
    np.testing.assert_allclose(np.cov(draws.T), normals[1].cov, atol=5 * np.diag(normals[1].cov).max() / 20_000**0.5)


@pytest.mark.parametrize("kind", MAPS)
def test_every_parameter_of_a_map_is_trained(kind, rng):
    prior, params = wild_clusters(kind, "gaussian")
    z = np.float32(rng.normal(0, 2, (20, Q)))
    gradient = jax.jit(jax.grad(lambda params: jnp.mean(prior.bind(params).log_prob(z))))(params)
    for name, leaf in gradient.items():
        assert 1e-3 < np.linalg.norm(leaf) < np.inf, name


def test_a_rotation_of_the_data_and_of_the_maps_changes_nothing(rng):
    prior, params = wild_clusters("full")
    w, origin = matrices(prior, params)
    turn = np.linalg.qr(rng.normal(size=(Q, Q)))[0]
    lower = []
    for m in w:
        q, r = np.linalg.qr((m @ turn.T)[:, ::-1])  # W P = Q U, so W = (Q P) (P U P), whose second part is lower
        rotation, triangular = q[:, ::-1], r[::-1, ::-1]
        sign = np.sign(np.diag(triangular))
        lower.append((rotation * sign, sign[:, None] * triangular))
    scale = np.stack([np.diag(t) for _, t in lower])
    unit = np.stack([t for _, t in lower]) / scale[..., None]
    turned = params | {
        "location": np.float32(origin @ turn.T),
        "log_scale": np.float32(np.log(scale)),
        "lower": np.float32(unit * Q**0.5),
        "rotation": np.float32([r for r, _ in lower]),
    }
    z = rng.normal(0, 2, (200, Q))
    before, after = prior.bind(params).log_prob(np.float32(z)), prior.bind(turned).log_prob(np.float32(z @ turn.T))
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("points", ["random", pytest.param("sobol", marks=pytest.mark.slow)])
def test_draws_have_the_joint_law(setting, points):
    """Cluster by cluster, by the probability below each own coordinate, which must be uniform and independent."""
    prior, params, bound = setting
    num, pi = 2**15, special.softmax(np.asarray(params["logits"], np.float64))
    draws, cluster = bound.sample_with_cluster(jax.random.key(2), (num,), points)
    assert cluster.dtype == jnp.int32
    # A net has its share in each interval.
    error = np.sqrt(pi * (1 - pi) / num) if points == "random" else 0.5 / num
    assert_within(np.bincount(cluster, minlength=C) / num, pi, error, 4)
    np.testing.assert_array_equal(draws, bound.sample(jax.random.key(2), (num,), points))
    w, origin = matrices(prior, params)
    for c, row in enumerate(components(prior, params)):
        y = (np.asarray(draws)[cluster == c] - origin[c]) @ w[c].T
        u = np.stack([row[q].cdf(y[:, q]) for q in range(Q)], axis=1)
        counts = np.histogramdd(u, bins=4, range=[(0, 1)] * Q)[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-3
        np.testing.assert_allclose(u.mean(axis=0), 0.5, atol=4 * 0.29 / len(u) ** 0.5)


def test_marginals_are_univariate_mixtures(rng):
    prior, params = wild_clusters("diagonal")
    bound, pi = prior.bind(params), special.softmax(np.asarray(params["logits"], np.float64))
    w, origin = matrices(prior, params)
    z = np.float32(rng.normal(0, 2, (400, Q)))
    y = [(np.float64(z) - origin[c]) * np.diag(w[c]) for c in range(C)]
    rows = components(prior, params)
    cdf, density = (
        sum(
            pi[c] * np.stack([getattr(rows[c][q], what)(y[c][:, q]) * scale[c, q] for q in range(Q)], axis=1)
            for c in range(C)
        )
        for what, scale in (("cdf", np.ones((C, Q))), ("pdf", np.diagonal(w, axis1=1, axis2=2)))
    )
    np.testing.assert_allclose(bound.cdf(z), cdf, atol=3e-5)
    np.testing.assert_allclose(bound.density(z), density, atol=3e-4)
    u = np.float32(rng.uniform(0.001, 0.999, (400, Q)))
    found, slope = jax.jit(lambda u: jax.jvp(bound.quantile, (u,), (jnp.ones_like(u),)))(u)
    np.testing.assert_allclose(bound.cdf(found), u, atol=3e-6)
    np.testing.assert_allclose(slope, 1 / bound.density(found), rtol=1e-4)
    np.testing.assert_allclose(bound.only(1).density(z)[:, 0], rows[1][0].pdf(y[1][:, 0]) * w[1, 0, 0], atol=3e-4)


def test_draws_of_one_cluster(setting):
    """Of one for each entry, all of one shape; the same key gives the same draws however they are asked for."""
    prior, params, bound = setting
    which, (w, origin) = np.tile([2, 0], 4000), matrices(prior, params)
    draws = np.asarray(bound.sample_of_cluster(jax.random.key(3), which, (8000,)))
    rows, u = components(prior, params), np.float32([[0.1, 0.7], [0.5, 0.5]])
    middle = np.asarray(bound.quantile_of_cluster(u, np.array([2, 0])))
    for i, c in enumerate((2, 0)):
        y = (draws[which == c] - origin[c]) @ w[c].T
        at = w[c] @ (middle[i] - origin[c])
        for q in range(Q):
            assert stats.kstest(rows[c][q].cdf(y[:, q]), "uniform").pvalue > 1e-3
            np.testing.assert_allclose(rows[c][q].cdf(at[q : q + 1]), u[i, q], atol=1e-4)
    np.testing.assert_array_equal(bound.sample_of_cluster(jax.random.key(3), which), draws)


def test_many_draws_of_full_maps_are_those_of_few(monkeypatch, rng):
    prior, params = wild_clusters("full", "gaussian")
    bound, y, cluster = prior.bind(params), np.float32(rng.normal(size=(51, Q))), np.arange(51) % C
    whole = jax.jit(bound.place)(cluster, y)
    monkeypatch.setattr(bound_clusters, "_MAX_MATRICES", 20 * Q**2)
    np.testing.assert_allclose(jax.jit(lambda *given: bound.place(*given))(cluster, y), whole, rtol=1e-6)
    w, origin = matrices(prior, params)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", w[cluster], whole - origin[cluster]), y, atol=1e-5)


@pytest.fixture(scope="module")
def of_classes():
    """Clusters 0 and 2 belong to class 0, 1 and 3 to class 1. As many latents as clusters: see test_conditional.py."""
    prior = make_prior("clustered", 4, 4, basis="rbf", proportions="learned", num_classes=2, grid_size=3)
    params = wild(jax.jit(prior.init)(jax.random.key(0)), 2.0) | {"logits": np.float32([0.0, 1.0, -0.5, 0.3])}
    return prior.bind(params)


def test_densities_of_classes_are_sums_over_their_clusters(of_classes, rng):
    bound = of_classes
    label = rng.integers(0, 2, 50)

    @jax.jit
    def found(z):
        joint = bound.log_responsibilities(z) + bound.log_prob(z)[..., None]
        return joint, bound.log_prob_with_class(z, label), bound.log_class_probabilities(z)

    joint, with_class, shares = map(np.float64, found(np.float32(rng.normal(size=(3, 50, 4)))))
    by_class = np.stack([np.logaddexp(joint[..., i], joint[..., i + 2]) for i in range(2)], axis=-1)
    np.testing.assert_allclose(with_class, np.where(label, by_class[..., 1], by_class[..., 0]), atol=1e-5)
    np.testing.assert_allclose(shares, by_class - special.logsumexp(by_class, axis=-1, keepdims=True), atol=1e-5)
    assert np.isfinite(joint).all()


def test_draws_of_a_class_are_of_its_clusters(of_classes):
    """Numbers below two points, class by class, of labels that alternate; without a shape one draw for each label."""
    bound = of_classes
    pi, label = np.exp(np.asarray(bound.table.log_proportions, np.float64)), np.tile([0, 1, 1], 5000)
    draws = np.asarray(Compiled(bound).sample_of_class(jax.random.key(1), label))
    assert draws.shape == (15_000, 4)
    cdf = jax.jit(bound.table.coordinates.cdf)
    for point in (-0.5, 0.4):
        at = np.exp(bound.params["log_scale"]) * (point - np.asarray(bound.params["location"]))
        below = np.asarray(cdf(at))  # [C, Q]
        truth = [pi[c::2] @ below[c::2] / pi[c::2].sum() for c in range(2)]
        assert np.abs(truth[0] - truth[1]).max() > 0.1
        for i, chosen in enumerate((0, 1, 1)):
            assert_within(np.mean(draws[i::3] < point, axis=0), truth[chosen], 0.5 / 5000**0.5, 4)


def test_refusals(refuses, of_classes):
    bound = of_classes
    plain, key = kaem.ClusteredPrior(num_latents=2, num_clusters=2), jax.random.key(0)
    with refuses(ValueError, "num_classes=3", "num_clusters=4"):
        kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=3)
    full = kaem.ClusteredPrior(num_latents=2, num_clusters=2, map="full")

    def asked(prior, method, *given):
        return jax.eval_shape(lambda key: getattr(prior.bind(prior.init(key)), method)(*given), key)

    refuses.each(
        *((lambda c=c: bound.sample_of_cluster(key, c, (2,)), ["cluster=", "0 to 3"]) for c in (4, -1, [0, 4])),
        (lambda: bound.sample_of_cluster(key, 1.5), ["cluster=1.5 must be an integer"]),
        (lambda: bound.sample_of_class(key, 2), ["label=2", "0 to 1"]),
        (lambda: bound.log_prob_with_class(jnp.zeros((1, 4)), jnp.asarray([2])), ["label=[2]", "0 to 1"]),
        (lambda: asked(plain, "sample_of_class", key, 0), ["belong to no classes"]),
        (lambda: kaem.ComonotonePrior(plain), ["densities=ClusteredPrior(", "must be a ProductPrior"]),
    )
    with refuses(NotImplementedError, "has quantile along its latents"):
        asked(full, "quantile", np.full(2, 0.5))


@pytest.mark.slow
def test_derivatives_of_rows_are_those_of_the_table():
    """A quantile by row has the derivative of the same quantile in the full bound."""
    prior, params = wild_clusters("diagonal")
    bound = prior.bind(params).table.coordinates
    u = jnp.asarray([[0.2, 0.7], [0.99, 0.4], [0.05, 0.5]])
    row = jnp.arange(6, dtype=jnp.int32).reshape(3, 2)

    @jax.jit
    def derivatives(bound, u):
        tangents = jax.tree.map(jnp.ones_like, (bound, u))
        by_row, whole = (lambda t, u, row=row: t.quantile(u, row) for row in (row, None))
        return jax.jvp(by_row, (bound, u), tangents), jax.jvp(whole, (bound, u), tangents)

    for found, expected in zip(*derivatives(bound, u), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert np.isfinite(expected).all()


def test_norms_and_their_derivatives_by_products(rng):
    """TPUs expand the square, CPUs that of its derivative; in float32 they lose few digits, far from the origin."""
    z, location = rng.normal(size=(6, 5)), rng.normal(size=(7, 5))
    scale = rng.uniform(0.5, 20, (7, 5))
    given = [np.float32(array) for array in (z + 40, location + 40, scale)]
    weights = np.float32(rng.normal(size=(6, 7)))

    def plain(z, location, scale):
        return jnp.sum((scale * (z[:, None] - location)) ** 2, axis=-1)

    def derivatives(norms):
        def value(*given):
            return jnp.sum(weights * norms(*given))

        first = jax.grad(value, argnums=(0, 1, 2))(*given)
        return norms(*given), *first, jax.hessian(value)(*given), jax.jacobian(jax.grad(value, 1), 2)(*given)

    kinds = (plain, affine._norms_by_products, affine._norms_one_by_one)
    expected, *others = jax.jit(lambda: [derivatives(norms) for norms in kinds])()
    np.testing.assert_allclose(expected[0], np.sum((scale * (z[:, None] - location)) ** 2, axis=-1), rtol=1e-3)
    for found in others:
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    np.testing.assert_allclose(others[1][0], expected[0], rtol=1e-6)
    prior = kaem.ClusteredPrior(num_latents=5, num_clusters=7, shape="gaussian")
    shapes = jax.eval_shape(prior.init, jax.random.key(0))
    traced = jax.jit(lambda p, z: prior.bind(p).log_prob(z)).trace(shapes, given[0])
    has_product = {name: "dot_general" in traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu")}
    assert has_product == {"cpu": False, "tpu": True}
