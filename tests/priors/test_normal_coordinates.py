"""The comonotone prior: the map from normal coordinates, its derivative and its law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.builders import wild_prior


def test_both_tails_of_the_normal_map_are_exact():
    """In float32 Phi(6) is 1: only the complement reaches the upper tail. A mirrored density gives mirrored draws."""
    prior, params = wild_prior("comonotone", grid_size=6, basis="rbf", base_activation="none")
    mirrored = params | {"bank": params["bank"] | {"coefficients": params["bank"]["coefficients"][..., ::-1]}}
    epsilon = jnp.broadcast_to(jnp.asarray([5.0, 6.0, 8.0, 10.0])[:, None], (4, *prior.event_shape))
    up = prior.bind(params).features(epsilon)
    down = prior.bind(mirrored).features(-epsilon)
    assert np.all(np.isfinite(up))
    assert np.all(np.diff(np.asarray(up), axis=0) > 0)
    np.testing.assert_allclose(up, -np.asarray(down), rtol=1e-5)


def test_comonotone_round_trip(rng):
    """One level for each term: all rows of z move with it, as draws of standard normal coordinates do."""
    prior, params = wild_prior("comonotone", grid_size=6, basis="rbf")
    bound = prior.bind(params)
    u = jnp.asarray(np.sort(rng.uniform(0.01, 0.99, (200, 3)), axis=0), jnp.float32)
    z = bound.quantile(u)
    assert z.shape == (200, 2, 3)
    assert np.all(np.diff(np.asarray(z), axis=0) >= -1e-6)
    np.testing.assert_allclose(bound.cdf(z), u, atol=3e-6)
    epsilon = jnp.asarray(special.ndtri(np.asarray(u, np.float64)), jnp.float32)
    np.testing.assert_allclose(bound.features(epsilon), z.sum(axis=-1), atol=1e-4)
    slope = jax.jvp(bound.values, (epsilon,), (jnp.ones_like(epsilon),))[1]  # p(z) dz/de = N(e; 0, 1)
    np.testing.assert_allclose(bound.density(z) * slope, stats.norm.pdf(epsilon)[:, None] + 0 * z, rtol=2e-3)
    assert np.all(
        np.asarray(bound.log_prob(epsilon)) == pytest.approx(stats.norm.logpdf(epsilon).sum(axis=-1), rel=1e-5)
    )
    draws = np.asarray(bound.sample(jax.random.key(0), (2000,)))
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in draws.T)
