"""Non-centred and comonotone priors: the map, its derivative, its law, and what mixing them up would cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.builders import wild_prior
from tests.priors.test_derivatives import numerical_jacobian, split_grid


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["non_centred_product", "non_centred_mixture"])
def test_non_centred_is_the_same_law_in_other_coordinates(x64, rng, kind):
    """features(epsilon) = features(F^-1(Phi(epsilon))), and the density of epsilon is the change of variables."""
    prior, params = wild_prior(kind, grid_size=6)
    table = prior.tabulate(params)
    epsilon = jnp.asarray(rng.normal(size=(50, *prior.event_shape)) * 2)
    z = prior.centred.quantile(table, jnp.asarray(special.ndtr(np.asarray(epsilon))))
    np.testing.assert_allclose(prior.features(table, epsilon), prior.centred.features(table, z), atol=1e-8)
    log_prob = prior.log_prob(params, epsilon)
    assert log_prob.shape == (50,)
    axes = tuple(range(1, epsilon.ndim))
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(np.asarray(epsilon)).sum(axes), rtol=1e-10)
    # p(z) |dz/de| = N(e): the product over coordinates of density(z) and the slope of the map.
    slope = jax.grad(lambda e: jnp.sum(prior.centred.quantile(table, jax.scipy.special.ndtr(e))))(epsilon)
    jacobian = jnp.sum(jnp.log(slope), axis=axes)
    np.testing.assert_allclose(prior.centred.log_prob(params, z) + jacobian, log_prob, atol=5e-6)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kind", "event_shape"), [("non_centred_product", (2, 3)), ("non_centred_mixture", (2,)), ("comonotone", (3,))]
)
def test_features_are_differentiable_in_latent_and_parameters(x64, rng, kind, event_shape):
    prior, params = wild_prior(kind, grid_size=6)
    assert prior.event_shape == event_shape
    epsilon = jnp.asarray(rng.normal(size=event_shape))
    vector, rebuild = split_grid(params)

    def of_params(v):
        return prior.features(prior.tabulate(rebuild(v)), epsilon)

    expected = jax.jit(lambda v: numerical_jacobian(of_params, v))(vector)
    assert np.max(np.abs(expected)) > 0.05
    np.testing.assert_allclose(jax.jit(jax.jacrev(of_params))(vector), expected, atol=1e-6, rtol=1e-5)

    table = prior.tabulate(params)

    def of_latent(e):
        return prior.features(table, e.reshape(event_shape))

    flat = epsilon.ravel()
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(of_latent))(flat), numerical_jacobian(of_latent, flat), atol=1e-6, rtol=1e-5
    )


def test_both_tails_of_the_normal_map_are_exact():
    """In float32 Phi(6) is 1: only the complement reaches the upper tail. A mirrored density gives mirrored draws."""
    prior, params = wild_prior("non_centred_product", grid_size=6, base_activation="none")
    mirrored = params | {"bank": params["bank"] | {"coefficients": params["bank"]["coefficients"][..., ::-1]}}
    epsilon = jnp.broadcast_to(jnp.asarray([5.0, 6.0, 8.0, 10.0])[:, None, None], (4, *prior.event_shape))
    up = prior.features(prior.tabulate(params), epsilon)
    down = prior.features(prior.tabulate(mirrored), -epsilon)
    assert np.all(np.isfinite(up))
    assert np.all(np.diff(np.asarray(up), axis=0) > 0)
    np.testing.assert_allclose(up, -np.asarray(down), rtol=1e-5)


def test_comonotone_round_trip(rng):
    prior, params = wild_prior("comonotone", grid_size=6)
    table = prior.tabulate(params)
    u = jnp.asarray(rng.uniform(0.01, 0.99, (200, 3)), jnp.float32)
    z = prior.quantile(table, u)
    assert z.shape == (200, 2, 3)
    assert np.all(np.diff(np.asarray(prior.quantile(table, jnp.sort(u, axis=0))), axis=0) >= -1e-6)  # monotone in u
    np.testing.assert_allclose(prior.cdf(table, z), u, atol=3e-6)
    assert prior.log_prob(params, u).shape == (200,)
    assert prior.sample(jax.random.key(0), table, (5,)).shape == (5, 3)


@pytest.mark.slow
def test_shared_uniforms_are_not_independent_ones(x64):
    """Mistake 11: a density that assumes independence is wrong for comonotone draws: the covariance tells."""
    prior, params = wild_prior("comonotone", grid_size=6)
    table = prior.tabulate(params)
    levels = (jnp.arange(100_000, dtype=float) + 0.5) / 100_000
    z = np.asarray(prior.quantile(table, jnp.broadcast_to(levels[:, None], (levels.size, 3))))
    exact = sum(np.cov(z[:, 0, p], z[:, 1, p])[0, 1] for p in range(3))

    def covariance(of):
        v = np.asarray(of.features(table, of.sample(jax.random.key(1), table, (200_000,))))
        product = (v[:, 0] - v[:, 0].mean()) * (v[:, 1] - v[:, 1].mean())
        return product.mean(), product.std() / np.sqrt(len(product))

    shared, error = covariance(prior)
    assert abs(shared - exact) < 5 * error
    independent, error = covariance(prior.centred)
    assert abs(independent) < 5 * error
    assert exact > 50 * error
