"""Non-centred and comonotone priors: the map, its derivative, its law, and what mixing them up would cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.builders import wild_prior


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["non_centred_mixture", "non_centred_product"])
def test_non_centred_is_the_same_law_in_other_coordinates(x64, rng, kind):
    """features(epsilon) = features(F^-1(Phi(epsilon))), and the density of epsilon is the change of variables."""
    prior, params = wild_prior(kind, grid_size=6)
    epsilon = jnp.asarray(rng.normal(size=(50, *prior.event_shape)) * 2)
    u, axes = jnp.asarray(special.ndtr(np.asarray(epsilon))), tuple(range(1, epsilon.ndim))

    @jax.jit
    def everything(epsilon):
        table = prior.tabulate(params)
        z = prior.centred.quantile(table, u)
        # p(z) |dz/de| = N(e): the product over coordinates of density(z) and the slope of the map.
        slope = jax.grad(lambda e: jnp.sum(prior.centred.quantile(table, jax.scipy.special.ndtr(e))))(epsilon)
        changed = prior.centred.log_prob(params, z) + jnp.sum(jnp.log(slope), axis=axes)
        by_features = jax.grad(lambda e: jnp.sum(prior.features(table, e)))(epsilon)
        features = prior.features(table, epsilon), prior.centred.features(table, z)
        return *features, prior.log_prob(params, epsilon), changed, z, by_features / slope

    found, expected, log_prob, changed, z, slopes = everything(epsilon)
    np.testing.assert_allclose(slopes, jnp.ones_like(slopes), rtol=1e-5)
    np.testing.assert_allclose(expected, z.sum(axis=-1) if kind == "non_centred_product" else z, rtol=1e-12)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(np.asarray(epsilon)).sum(axes), rtol=1e-10)
    np.testing.assert_allclose(changed, log_prob, atol=5e-6)


def test_both_tails_of_the_normal_map_are_exact():
    """In float32 Phi(6) is 1: only the complement reaches the upper tail. A mirrored density gives mirrored draws."""
    prior, params = wild_prior("non_centred_product", grid_size=6, basis="rbf", base_activation="none")
    mirrored = params | {"bank": params["bank"] | {"coefficients": params["bank"]["coefficients"][..., ::-1]}}
    epsilon = jnp.broadcast_to(jnp.asarray([5.0, 6.0, 8.0, 10.0])[:, None, None], (4, *prior.event_shape))
    up = prior.features(prior.tabulate(params), epsilon)
    down = prior.features(prior.tabulate(mirrored), -epsilon)
    assert np.all(np.isfinite(up))
    assert np.all(np.diff(np.asarray(up), axis=0) > 0)
    np.testing.assert_allclose(up, -np.asarray(down), rtol=1e-5)


def test_comonotone_round_trip(rng):
    """One level for each term: all rows of z move with it, as draws of standard normal coordinates do."""
    prior, params = wild_prior("comonotone", grid_size=6, basis="rbf")
    table = prior.tabulate(params)
    u = jnp.asarray(np.sort(rng.uniform(0.01, 0.99, (200, 3)), axis=0), jnp.float32)
    z = prior.quantile(table, u)
    assert z.shape == (200, 2, 3)
    assert np.all(np.diff(np.asarray(z), axis=0) >= -1e-6)
    np.testing.assert_allclose(prior.cdf(table, z), u, atol=3e-6)
    epsilon = jnp.asarray(special.ndtri(np.asarray(u, np.float64)), jnp.float32)
    np.testing.assert_allclose(prior.features(table, epsilon), z.sum(axis=-1), atol=1e-4)
    draws = np.asarray(prior.sample(jax.random.key(0), table, (2000,)))
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in draws.T)
