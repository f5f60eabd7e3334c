"""Derivatives of quantile, log_prob and log_normalizer against float64 finite differences, coordinate by coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import kaem_jax as kaem
from kaem_jax.settings.registry import BASES
from tests.builders import make_prior, wild_prior

STEP = 1e-6


def split_grid(params):
    """The trainable parameters as one vector, and how to put them back beside the grid."""
    grid = params["bank"]["grid"]
    bank = {name: value for name, value in params["bank"].items() if name != "grid"}
    vector, unravel = ravel_pytree(params | {"bank": bank})

    def rebuild(v):
        new = unravel(v)
        return new | {"bank": new["bank"] | {"grid": grid}}

    return vector, rebuild


def numerical_jacobian(function, vector):
    """Central differences of a batched function, one column for each coordinate."""
    steps = STEP * jnp.eye(vector.size)
    return jax.vmap(lambda d: (function(vector + d) - function(vector - d)) / (2 * STEP), out_axes=-1)(steps)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kind", "basis", "base"),
    [
        ("product", "b_spline", "gaussian"),
        ("mixture", "b_spline", "uniform"),
        ("product", "rbf", "uniform"),
        ("mixture", "morlet", "learnable_gaussian"),
    ],
)
def test_quantile_has_the_implicit_derivative(x64, rng, kind, basis, base):
    options = {"proportions": "learned"} if kind == "mixture" else {}
    prior, params = wild_prior(kind, basis=basis, base_density=base, grid_size=6, **options)
    vector, rebuild = split_grid(params)
    # The third level lies in the Gaussian's tails, outside the domain.
    levels = jnp.asarray([0.2, 0.71, 1e-4]).reshape(3, *[1] * len(prior.event_shape))
    u = levels + 1e-3 * levels * jnp.asarray(rng.uniform(size=(3, *prior.event_shape)))

    def draw(v):
        return prior.quantile(prior.tabulate(rebuild(v)), u)

    expected = jax.jit(lambda v: numerical_jacobian(draw, v))(vector)
    assert np.max(np.abs(expected)) > 0.05
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(draw))(vector), expected, atol=1e-6, rtol=1e-5)

    table = prior.tabulate(params)
    by_level = jax.grad(lambda u: jnp.sum(prior.quantile(table, u)))(u)
    higher, lower = prior.quantile(table, u + 1e-8), prior.quantile(table, u - 1e-8)
    np.testing.assert_allclose(by_level, (higher - lower) / 2e-8, rtol=1e-4)


DENSITIES = ["gaussian", "learnable_gaussian", "lognormal", "uniform"]
# Every family with some base density, every base density with some family, both forms.
GRADIENT_CASES = [("mixture", "b_spline", "gaussian")] + [
    (["product", "mixture"][i % 2], basis, DENSITIES[i % 4]) for i, basis in enumerate(BASES)
]


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "basis", "base"), GRADIENT_CASES)
def test_log_prob_gradients(x64, rng, kind, basis, base):
    domain = (0.1, 4.0) if base == "lognormal" else (-3.0, 3.0)
    prior, params = wild_prior(kind, basis=basis, base_density=base, grid_size=6, domain=domain)
    inside = rng.uniform(*domain, size=(3, *prior.event_shape))
    outside = np.full((1, *prior.event_shape), 4.5 if base != "uniform" else 0.3)
    z = jnp.asarray(np.concatenate([inside, outside]))
    vector, rebuild = split_grid(params)

    def of_params(v):
        return prior.log_prob(rebuild(v), z)

    expected = jax.jit(lambda v: numerical_jacobian(of_params, v))(vector)
    np.testing.assert_allclose(jax.jit(jax.jacrev(of_params))(vector), expected, atol=1e-7, rtol=1e-6)

    table = prior.tabulate(params)

    def of_latent(point):
        return prior.log_prob(params, point.reshape(prior.event_shape), table)

    flat = z.reshape(4, -1)
    expected = jax.jit(jax.vmap(lambda point: numerical_jacobian(of_latent, point)))(flat)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(of_latent)))(flat), expected, atol=1e-7, rtol=1e-6)


def test_normaliser_gradient_is_the_negative_phase(x64):
    """d log Z / d theta = E_p[d f / d theta]: with quadrature the contrastive phase has no variance (section 5)."""
    prior, params = wild_prior("product", grid_size=6)
    bank = params["bank"]

    def total(coefficients):
        return jnp.sum(prior.log_normalizer(params | {"bank": bank | {"coefficients": coefficients}}))

    gradient = jax.grad(total)(bank["coefficients"])
    # Expectation by midpoint levels: 200,000 exact quantiles stand for the density.
    levels = (jnp.arange(200_000, dtype=float) + 0.5) / 200_000
    table = prior.tabulate(params)
    z = prior.quantile(table, jnp.broadcast_to(levels[:, None, None], (levels.size, *prior.event_shape)))
    grid = bank["grid"]
    features = prior.bank.basis.evaluate(jnp.clip(z, grid[..., 0], grid[..., -1]), grid, None)
    np.testing.assert_allclose(gradient, jnp.mean(features, axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["product", "mixture", "clustered"])
@pytest.mark.parametrize(("base", "outside"), [("uniform", 3.5), ("lognormal", -0.5)])
def test_gradients_are_numbers_outside_a_bounded_support(kind, base, outside):
    """One such datum in a batch must not spoil the gradients of all parameters."""
    prior = make_prior(kind, base_density=base, domain=(0.5, 3.0), grid_size=4)
    params = prior.init(jax.random.key(0))
    z = jnp.full((2, *prior.event_shape), 1.0).at[0].set(outside)

    def total(params, z):
        value = prior.log_prob(params, z)
        return value[1] + jnp.where(jnp.isfinite(value[0]), value[0], 0), value

    (slopes, slope_z), value = jax.grad(total, argnums=(0, 1), has_aux=True)(params, z)
    assert value[0] == -jnp.inf
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((slopes, slope_z)))
    assert float(jnp.abs(slope_z[1]).max()) > 0


def test_densities_have_derivatives_however_far_the_ends_are():
    """float32 has no probability of the base density beyond 13 deviations, and the other branch asks for it."""
    prior = kaem.ProductPrior(num_latents=1, num_terms=1, domain=(-15.0, 15.0), grid_size=30)
    params = prior.init(jax.random.key(0))
    table = prior.tabulate(params)
    z = jnp.asarray([-16.0, 0.3, 17.0])[:, None, None]
    slope = jax.grad(lambda z: jnp.sum(prior.density(table, z)))(z)
    assert bool(jnp.isfinite(slope).all())
    by_log = jax.grad(lambda z: jnp.sum(prior.log_prob(params, z, table)))(z) * prior.density(table, z)
    np.testing.assert_allclose(slope[1], by_log[1], rtol=1e-3, atol=1e-5)


def test_gradients_stop_at_the_grid():
    for kind in ("mixture", "clustered"):
        prior = make_prior(kind, num_each=2)
        params = prior.init(jax.random.key(0))
        z = jnp.asarray([0.3, 5.0])  # one inside the domain, one outside
        gradient = jax.grad(lambda p, z=z, prior=prior: jnp.sum(prior.log_prob(p, z)))(params)
        assert np.all(np.asarray(gradient["bank"]["grid"]) == 0)
        assert np.any(np.asarray(gradient["bank"]["coefficients"]) != 0)


@pytest.mark.parametrize("inner", [2, 24])  # B-splines have another matrix product for many functions
def test_log_z_has_every_derivative_with_empty_panels(x64, rng, inner):
    """A base activation with a kink makes empty panels; forward, reverse and second derivatives stay right."""
    prior = kaem.MixturePrior(num_latents=1, num_components=inner, grid_size=6, base_activation="relu")
    params = prior.init(jax.random.key(0))

    def log_z(coefficients):
        bank = params["bank"] | {"coefficients": coefficients}
        return prior.log_normalizer(params | {"bank": bank})[0, 0]

    at = jnp.asarray(rng.uniform(-3, 3, params["bank"]["coefficients"].shape))
    step = jnp.asarray(rng.normal(size=at.shape))
    slope = (log_z(at + STEP * step) - log_z(at - STEP * step)) / (2 * STEP)
    forward, reverse = jax.jvp(log_z, (at,), (step,))[1], jnp.sum(jax.grad(log_z)(at) * step)
    np.testing.assert_allclose([forward, reverse], [slope, slope], rtol=1e-6)
    curvature = (jax.grad(log_z)(at + STEP * step) - jax.grad(log_z)(at - STEP * step)) / (2 * STEP)
    np.testing.assert_allclose(jax.jvp(jax.grad(log_z), (at,), (step,))[1], curvature, atol=1e-6)
