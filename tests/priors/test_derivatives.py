"""Derivatives of quantile, log_prob and log_normalizer against float64 finite differences, coordinate by coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import kaem_jax as kaem
from kaem_jax.priors import bound_clusters
from kaem_jax.settings.registry import BASES
from tests.builders import make_prior, wild_prior

STEP = 1e-6


def trainable(params):
    """The trainable parameters as one vector, and how to put them back beside rotations."""
    fixed = {name: leaf for name, leaf in params.items() if name == "rotation"}
    vector, unravel = ravel_pytree({name: leaf for name, leaf in params.items() if name != "rotation"})
    return vector, lambda v: unravel(v) | fixed


def numerical_jacobian(function, vector):
    """Central differences of a batched function, one column for each coordinate."""
    steps = STEP * jnp.eye(vector.size)
    return jax.vmap(lambda d: (function(vector + d) - function(vector - d)) / (2 * STEP), out_axes=-1)(steps)


IMPLICIT_CASES = [("product", "b_spline", "gaussian"), ("mixture", "b_spline", "uniform")]
IMPLICIT_CASES += [("product", "rbf", "uniform"), ("mixture", "morlet", "learnable_gaussian"), ("clustered", "rbf", "")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "basis", "base"), IMPLICIT_CASES)
def test_quantile_has_the_implicit_derivative(x64, rng, monkeypatch, kind, basis, base):
    options = {} if kind == "product" else {"proportions": "learned"}
    options |= {"base_density": base} if base else {}
    monkeypatch.setattr(bound_clusters, "_NUM_HALVINGS", 60)  # to what 64 bits hold
    prior, params = wild_prior(kind, basis=basis, grid_size=6, **options)
    vector, rebuild = trainable(params)
    # The third level lies in the Gaussian's tails, outside the domain.
    levels = jnp.asarray([0.2, 0.71, 1e-4]).reshape(3, *[1] * len(prior.event_shape))
    u = levels + 1e-3 * levels * jnp.asarray(rng.uniform(size=(3, *prior.event_shape)))

    def draw(v):
        return prior.bind(rebuild(v)).quantile(u)

    expected = jax.jit(lambda v: numerical_jacobian(draw, v))(vector)
    assert np.max(np.abs(expected)) > 0.05
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(draw))(vector), expected, atol=1e-6, rtol=1e-5)


DENSITIES = ["gaussian", "learnable_gaussian", "lognormal", "uniform"]
# Every family with some base density, every base density with some family, both forms.
GRADIENT_CASES = [("turned", "b_spline", "gaussian"), ("mixture", "b_spline", "gaussian")] + [
    (["product", "mixture"][i % 2], basis, DENSITIES[i % 4]) for i, basis in enumerate(BASES)
]


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "basis", "base"), GRADIENT_CASES)
def test_log_prob_gradients(x64, rng, kind, basis, base):
    domain = (0.1, 4.0) if base == "lognormal" else (-3.0, 3.0)
    options = {} if kind == "product" else {"proportions": "learned"}
    options |= {} if kind == "turned" else {"base_density": base, "domain": domain}
    prior, params = wild_prior(kind, basis=basis, grid_size=6, **options)
    inside = rng.uniform(*domain, size=(3, *prior.event_shape))
    outside = np.full((1, *prior.event_shape), 4.5 if base != "uniform" else 0.3)
    z = jnp.asarray(np.concatenate([inside, outside]))
    vector, rebuild = trainable(params)

    def of_params(v):
        return prior.bind(rebuild(v)).log_prob(z)

    def of_latent(point):
        return prior.bind(params).log_prob(point.reshape(prior.event_shape))

    @jax.jit
    def everything(v, points):
        yield_of = (numerical_jacobian(of_params, v), jax.jacrev(of_params)(v))
        return (
            *yield_of,
            jax.vmap(lambda p: numerical_jacobian(of_latent, p))(points),
            jax.vmap(jax.grad(of_latent))(points),
            jax.grad(lambda p: jnp.sum(prior.bind(p).log_prob(z)))(params).get("rotation", jnp.zeros(())),
        )

    expected, found, expected_slope, slope, of_rotation = everything(vector, z.reshape(4, -1))
    assert np.all(of_rotation == 0)
    assert np.isfinite(expected).all()
    assert np.isfinite(expected_slope).all()
    np.testing.assert_allclose(found, expected, atol=1e-7, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-7, rtol=1e-6)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product"])
def test_gradients_are_numbers_outside_a_bounded_support(kind):
    """One such datum in a batch must not spoil the gradients of all parameters."""
    for base, outside in (("uniform", 3.5), ("lognormal", -0.5)):
        prior = make_prior(kind, basis="rbf", base_density=base, domain=(0.5, 3.0), grid_size=4)
        z = np.float32([outside, 1])[(slice(None), *[None] * len(prior.event_shape))] + np.zeros(prior.event_shape)

        def total(params, z, prior=prior):
            value = prior.bind(params).log_prob(z)
            return value[1] + jnp.where(jnp.isfinite(value[0]), value[0], 0), value

        @jax.jit
        def gradients(key, prior=prior, z=z, total=total):
            return jax.grad(total, argnums=(0, 1), has_aux=True)(prior.init(key), jnp.float32(z))

        (slopes, slope_z), value = gradients(jax.random.key(0))
        assert value[0] == -np.inf
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slopes, slope_z)))
        assert np.abs(slope_z[1]).max() > 0
        assert np.any(np.asarray(slopes["bank"]["coefficients"]) != 0)


@pytest.mark.slow
def test_densities_have_derivatives_however_far_the_ends_are():
    """float32 has no probability of the base density beyond 13 deviations, and the other branch asks for it."""
    prior = kaem.ProductPrior(num_latents=1, num_terms=1, domain=(-15.0, 15.0), grid_size=30)
    params = prior.init(jax.random.key(0))
    bound, z = prior.bind(params), jnp.asarray([-16.0, 0.3, 17.0])[:, None, None]

    @jax.jit
    def slopes(z):
        by_log = jax.grad(lambda z: jnp.sum(bound.log_prob(z)))(z) * bound.density(z)
        return jax.grad(lambda z: jnp.sum(bound.density(z)))(z), by_log

    slope, by_log = slopes(z)
    assert bool(jnp.isfinite(slope).all())
    np.testing.assert_allclose(slope[1], by_log[1], rtol=1e-3, atol=1e-5)


def test_log_z_has_every_derivative(x64, rng):
    """Forward, reverse and second ones, with a base activation that has a kink."""
    prior = kaem.MixturePrior(num_latents=1, num_components=4, grid_size=6, base_activation="relu")
    params = jax.jit(prior.init)(jax.random.key(0))
    at = rng.uniform(-3, 3, params["bank"]["coefficients"].shape)
    step = rng.normal(size=at.shape)

    def log_z(t):
        bank = params["bank"] | {"coefficients": at + t * step}
        return prior.bind(params | {"bank": bank}).log_normalizer()[0, 0]

    @jax.jit
    def everything(t):
        forward = lambda t: jax.jvp(log_z, (t,), (jnp.ones_like(t),))[1]  # noqa: E731
        return log_z(t), forward(t), jax.grad(log_z)(t), jax.jvp(jax.grad(log_z), (t,), (jnp.ones_like(t),))[1]

    below, here, above = (np.array(everything(t)) for t in (-STEP, 0.0, STEP))
    slope, curvature = (above[i] - below[i] for i in (0, 2))
    np.testing.assert_allclose(here[1:3], slope / (2 * STEP), rtol=1e-6)
    np.testing.assert_allclose(here[3], curvature / (2 * STEP), atol=1e-6)
