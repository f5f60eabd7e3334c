"""Quantile, CDF, normaliser and tails of every basis x base density x kind against independent float64 quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from kaem_jax.settings.registry import BASES
from tests.builders import make_prior
from tests.truth import densities

OUTER, INNER, DRAWS = 6, 4, 1000
DENSITIES = ["gaussian", "learnable_gaussian", "lognormal", "uniform"]  # flat is the same object as uniform
SPLINE_DEGREES = [1, 2, 4, 5]
# The full product of families and base densities, every spline degree, and mixtures of a covering subset.
CASES = (
    [("mixture", "b_spline", 3, base) for base in DENSITIES]
    + [("product", basis, 3, base) for basis in BASES for base in DENSITIES]
    + [("product", "b_spline", degree, "gaussian") for degree in SPLINE_DEGREES]
    + [("mixture", basis, 3, "gaussian") for basis in ("rbf", "fourier", "morlet")]
)
KINDS = ["product", "mixture"]
# Sums of many large, fast terms: float32 rounding limits these four (docs/decisions/quadrature.md).
ROUNDING = {"chebyshev": 4e-6, "fourier": 4e-6, "morlet": 8e-6, "shannon": 8e-6}


def wild_prior(kind, basis, degree, base, rng, activation="silu", amplitude=10.0):
    """A prior whose energies swing over +-amplitude nats, between neighbouring knots where the family can."""
    prior = make_prior(
        kind, OUTER, INNER, basis=basis, degree=degree, base_density=base, base_activation=activation,
        # relu's kink at 0 must fall inside a panel, or nothing tests that it becomes an edge.
        domain=(0.05, 8.0) if base == "lognormal" else (-3.0, 3.37 if activation == "relu" else 3.0),
        **({"proportions": "learned"} if kind == "mixture" else {}),
    )  # fmt: skip
    params = jax.jit(prior.init)(jax.random.key(0))
    bank = params["bank"]
    coefficients = rng.uniform(-1, 1, bank["coefficients"].shape)
    if "scale" in bank:
        bank["scale"] = bank["scale"] + np.float32(rng.uniform(-0.5, 0.5, bank["scale"].shape))
    if basis not in ("b_spline", "rbf", "rswaf"):  # global features add up: bring the sum to the same range
        low, high = prior.bank.domain
        x = np.linspace(low, high, 400, dtype=np.float32)[:, None, None]
        trial = bank | {"coefficients": coefficients, "base_weight": np.zeros((OUTER, INNER))}
        energy = jax.jit(prior.bank.evaluate)(trial, np.broadcast_to(x, (400, *prior.bank.argument_shape)))
        coefficients = coefficients / np.max(np.abs(np.asarray(energy)), axis=0)[..., None]
    bank["coefficients"] = np.float32(amplitude * coefficients)
    if activation == "relu":  # its kink must matter
        bank["base_weight"] = np.float32(rng.uniform(-10, 10, (OUTER, INNER)))
    if base == "learnable_gaussian":
        shape = params["base"]["mean"].shape
        mean, raw = rng.uniform(-1, 1, shape), rng.uniform(0, 2, shape)
        params["base"] = {"mean": np.float32(mean), "raw_deviation": np.float32(raw)}
    if kind == "mixture":
        params["logits"] = np.float32(rng.normal(size=(OUTER, INNER)))
    return prior, params


def marginals(params, components):
    """One (cdf, survival, pdf) for each latent coordinate, in the order of the flattened event."""

    def mean(members, weights, name):
        return lambda z: np.tensordot(weights, [getattr(member, name)(z) for member in members], axes=1)

    if "logits" in params:
        groups = zip(components, special.softmax(np.asarray(params["logits"], np.float64), axis=1), strict=True)
    else:
        groups = [([c], [1.0]) for row in components for c in row]
    return [tuple(mean(*group, name) for name in ("cdf", "survival", "pdf")) for group in groups]


@jax.jit
def round_trip(table, u):
    """Quantile, and CDF and density there. Compiled once for tables of one shape, not for each prior."""
    z = table.quantile(u)
    return z, table.cdf(z), table.density(z)


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "basis", "degree", "base"), CASES)
def test_table_is_exact_to_float32(kind, basis, degree, base, rng):
    activation = "relu" if degree == 2 else "silu"  # relu has a kink inside the domain
    prior, params = wild_prior(kind, basis, degree, base, rng, activation)
    components = densities(params, prior.bank, basis, degree, activation, base)
    table = prior.bind(params)

    truth = np.array([[c.log_normalizer for c in row] for row in components])
    bound = ROUNDING.get(basis, 2e-6)
    error = np.abs(np.asarray(table.log_normalizer()) - truth) / np.maximum(1, np.abs(truth))
    assert error.max() <= bound

    u = rng.uniform(size=(DRAWS, *prior.event_shape)).astype(np.float32)
    u[0], u[1] = 2.0**-24, 1 - 2.0**-24
    z, back, slope = (np.asarray(array).reshape(DRAWS, -1) for array in round_trip(table.table, u))
    for i, (cdf, survival, pdf) in enumerate(marginals(params, components)):
        point, level = z[:, i].astype(np.float64), u.reshape(DRAWS, -1)[:, i].astype(np.float64)
        # A float32 z cannot be closer than its own spacing.
        resolution = bound + pdf(point) * np.spacing(np.abs(z[:, i]))
        below = cdf(point)
        assert np.all(np.abs(below - level) <= resolution)
        assert np.all(np.abs(survival(point) - (1 - level)) <= resolution)
        assert np.all(np.abs(back[:, i] - below) <= resolution)
        # The slope is the interpolant itself, one order less exact than its integral.
        np.testing.assert_allclose(slope[:, i], pdf(point), rtol=1e3 * bound, atol=1e-4 * pdf(point).max())


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_the_normalised_density(kind, rng):
    prior, params = wild_prior(kind, "b_spline", 3, "gaussian", rng)
    components = densities(params, prior.bank, "b_spline", 3, "silu", "gaussian")
    # Inside, at the ends of the domain and far outside: the energy is constant there, pi0 is not.
    z = np.concatenate([rng.uniform(-3, 3, 50), [-3, 3, -8, 8, 30, -30, 2.0**59]]).astype(np.float32)
    latent = np.broadcast_to(z.reshape(-1, *[1] * len(prior.event_shape)), (len(z), *prior.event_shape))
    log_prob = prior.bind(params).log_prob(latent)

    z = z.astype(np.float64)
    log_density = np.array([[c.energy(z) + c.log_pi0(z) - c.log_normalizer for c in row] for row in components])
    expected = log_density.sum((0, 1))  # of [Q, P, n]
    if kind == "mixture":
        log_density += special.log_softmax(params["logits"], axis=1)[..., None]
        expected = special.logsumexp(log_density, axis=1).sum(0)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "inner"), [("mixture", 100), ("product", 3), ("mixture", 3), ("turned", 3)])
def test_products_ask_for_full_precision(kind, inner):
    """Accelerators round the factors of products to ten bits or fewer unless they are asked not to."""
    prior = make_prior(kind, num_each=inner)
    params = prior.init(jax.random.key(0))
    z = jnp.zeros((3, *prior.event_shape))
    both = jax.jit(lambda p: (jax.grad(lambda p: jnp.sum(prior.bind(p).log_prob(z)))(p), prior.bind(p)))
    products = [line for line in both.lower(params).as_text().splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_learned_base_density_gets_no_narrower_than_the_quadrature_sees(rng):
    """Without energies log Z is 0, wherever the peak is; and the deviation can grow again."""
    settings = {"domain": (-4.0, 4.0), "grid_size": 10, "base_scale": 0.0, "coefficient_scale": 0.0, "basis": "rbf"}
    prior = make_prior("mixture", 1, 200, base_density="learnable_gaussian", **settings)
    params = jax.jit(prior.init)(jax.random.key(0))
    shape = params["base"]["mean"].shape
    params["base"] = {"mean": np.float32(rng.uniform(-4, 4, shape)), "raw_deviation": np.full(shape, -9.0)}
    np.testing.assert_allclose(prior.bind(params).log_normalizer(), 0, atol=2e-5)
    deviation, slope = jax.value_and_grad(lambda raw: prior.base.deviation({"raw_deviation": raw}))(-9.0)
    np.testing.assert_allclose(deviation, 0.15 * 8 / 10, rtol=1e-6)
    assert slope > 0


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("base", "domain", "num_intervals"),
    [("lognormal", (0.02, 0.02 * np.exp(7.5)), 3), ("gaussian", (-15.0, 15.0), 3), ("gaussian", (-4.0, 6.0), 1)],
)
def test_the_widest_intervals_that_are_allowed_see_the_base_density(base, domain, num_intervals):
    """Without energies log Z is 0."""
    settings = {"domain": domain, "grid_size": num_intervals, "base_density": base, "basis": "rbf"}
    prior = make_prior("product", 1, base_activation="none", coefficient_scale=0.0, **settings)
    np.testing.assert_allclose(prior.bind(prior.init(jax.random.key(0))).log_normalizer(), 0, atol=1e-6)


def test_a_bounded_base_density_has_no_mass_outside(rng):
    """`flat` is the paper's name of the uniform one; quantiles of 0 and 1 are the ends of the support."""
    prior, params = wild_prior("product", "rbf", 3, "flat", rng)
    bound, outside = prior.bind(params), np.full(prior.event_shape, 3.5, np.float32)
    assert np.all(np.asarray(bound.log_prob(outside)) == -np.inf)
    assert np.all(np.asarray(bound.density(outside)) == 0)
    assert np.all(np.asarray(bound.cdf(outside)) == pytest.approx(1, abs=1e-6))
    assert np.all(np.asarray(bound.cdf(-outside)) == 0)
    whole = np.full(prior.event_shape, 2)  # constants of a density must not be cut to whole numbers
    np.testing.assert_array_equal(bound.log_prob(whole), bound.log_prob(whole.astype(np.float32)))
    low, high = np.asarray(bound.quantile(np.stack([0 * outside, 0 * outside + 1])))
    assert np.all((low >= -3) & (low < -3 + 1e-5) & (high > 3 - 1e-5) & (high <= 3))


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_constant_shift_of_the_energy_changes_nothing(kind, rng):
    """Mistake 18: B-splines sum to one, so adding c to every coefficient adds c to f; exp(f) alone would overflow."""
    prior, params = wild_prior(kind, "b_spline", 3, "gaussian", rng)
    shift = 512.0  # a power of two, so that the shifted coefficients lose few digits
    bank = params["bank"]
    coefficients = np.round(bank["coefficients"] * 1024) / 1024
    u = np.float32(rng.uniform(size=(DRAWS, *prior.event_shape)))
    before, after = (
        prior.bind(params | {"bank": bank | {"coefficients": coefficients + constant}}) for constant in (0.0, shift)
    )
    np.testing.assert_allclose(np.asarray(after.log_normalizer()) - shift, before.log_normalizer(), atol=2e-4)
    # The energies near 512 are rounded to 6e-5, hence the tolerance on the probability.
    np.testing.assert_allclose(before.cdf(after.quantile(u)), u, atol=1e-4)


def test_tails_are_exact_far_outside_the_domain(rng):
    """Upper and lower tail alike, relative accuracy: the Gaussian is not cut at the domain (mistake 13).

    From above a float32 level ends at 1 - 2^-24; levels 0 and 1 are at infinity."""
    prior, params = wild_prior("product", "b_spline", 3, "gaussian", rng)
    components = [c for row in densities(params, prior.bank, "b_spline", 3, "silu", "gaussian") for c in row]
    bound = prior.bind(params)
    levels = np.zeros((DRAWS, *prior.event_shape), np.float32)  # as many as in other tests, for the same program
    levels[:7] = np.float32([1e-4, 1e-6, 1e-12, 1e-25, 1 - 2.0**-24, 0, 1])[:, None, None]
    *points, low, high = np.asarray(bound.quantile(levels), np.float64)[:7]
    for level, z_at in zip((1e-4, 1e-6, 1e-12, 1e-25, 1 - 2.0**-24), points, strict=True):
        for component, z in zip(components, z_at.ravel(), strict=True):
            tail, found = (level, component.cdf(z)) if level < 0.5 else (1 - level, component.survival(z))
            resolution = 1e-5 + component.pdf(z) / tail * np.spacing(np.float32(abs(z)))
            assert abs(found / tail - 1) <= 3 * resolution
    np.testing.assert_array_equal(low, -np.inf)
    np.testing.assert_array_equal(high, np.inf)


@pytest.mark.sweep
@pytest.mark.parametrize("base", ["uniform", "gaussian"])
def test_a_kink_at_the_upper_end_leaves_density_and_quantile_as_they_are(base):
    """hard_swish has kinks at -3 and 3, the ends of the domain."""
    prior = make_prior("product", 1, 1, basis="rbf", base_activation="hard_swish", base_density=base)
    ends = np.float32([-3, 3])[:, None, None]

    @jax.jit
    def found(key):
        bound = prior.bind(prior.init(key))
        slope = jax.grad(lambda u: jnp.sum(bound.quantile(u)))((ends + 3) / 6)
        return bound.log_prob(ends), bound.density(ends), slope

    log_p, density, slope = map(np.ravel, found(jax.random.key(0)))
    np.testing.assert_allclose(density, np.exp(log_p), rtol=1e-4)
    if base == "uniform":
        np.testing.assert_allclose(slope, np.exp(-log_p), rtol=1e-4)
