"""The comonotone prior: the map from normal coordinates, its derivative and its law."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from tests.builders import wild_prior


def test_both_tails_of_the_normal_map_are_exact():
    """In float32 Phi(6) is 1: only the complement reaches the upper tail. A mirrored density gives mirrored draws."""
    prior, params = wild_prior("comonotone", grid_size=6, basis="rbf", base_activation="none")
    mirrored = params | {"bank": params["bank"] | {"coefficients": params["bank"]["coefficients"][..., ::-1]}}
    epsilon = np.broadcast_to(np.float32([5, 6, 8, 10])[:, None], (4, *prior.event_shape))
    features = jax.jit(lambda params, epsilon: prior.bind(params).features(epsilon))
    up, down = features(params, epsilon), features(mirrored, -epsilon)
    assert np.all(np.isfinite(up))
    assert np.all(np.diff(np.asarray(up), axis=0) > 0)
    np.testing.assert_allclose(up, -np.asarray(down), rtol=1e-5)


def test_comonotone_round_trip(rng):
    """One level for each term: all rows of z move with it, as draws of standard normal coordinates do."""
    prior, params = wild_prior("comonotone", grid_size=6, basis="rbf")
    bound = prior.bind(params)
    u = np.float32(np.sort(rng.uniform(0.01, 0.99, (200, 3)), axis=0))
    epsilon = np.float32(special.ndtri(np.float64(u)))

    @jax.jit
    def everything(u, epsilon):
        z = bound.quantile(u)
        slope = jax.jvp(bound.values, (epsilon,), (jnp.ones_like(epsilon),))[1]
        return z, bound.cdf(z), bound.density(z), bound.features(epsilon), slope, bound.log_prob(epsilon)

    z, level, density, features, slope, log_p = map(np.asarray, everything(u, epsilon))
    assert z.shape == (200, 2, 3)
    assert np.all(np.diff(z, axis=0) >= -1e-6)
    np.testing.assert_allclose(level, u, atol=3e-6)
    np.testing.assert_allclose(features, z.sum(axis=-1), atol=1e-4)
    np.testing.assert_allclose(density * slope, stats.norm.pdf(epsilon)[:, None] + 0 * z, rtol=2e-3)  # p(z) dz/de
    np.testing.assert_allclose(log_p, stats.norm.logpdf(epsilon).sum(axis=-1), rtol=1e-5)
    draws = np.asarray(bound.sample(jax.random.key(0), (2000,)))
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in draws.T)
