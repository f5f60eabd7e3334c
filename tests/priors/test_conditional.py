"""Draws given some coordinates: exact, with the known values untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.priors import sample_given
from tests.builders import make_prior


@pytest.fixture(scope="module")
def clustered():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=3, proportions="learned", base_scale=1.5)
    params = prior.init(jax.random.key(3))
    return prior, params | {"logits": jnp.asarray([0.0, 0.7, -0.4])}


def test_the_others_follow_the_conditional_law(clustered):
    """Of the second latent, given the first: clusters weigh what they say of it."""
    prior, params = clustered
    table, known = prior.tabulate(params), np.array([0.8, 0.0], np.float32)
    drawn = np.asarray(sample_given(jax.random.key(0), prior, params, known, [True, False], 4000))
    np.testing.assert_array_equal(drawn[:, 0], known[0])
    z = np.linspace(-9, 9, 6001, dtype=np.float32)
    points = np.stack([np.full_like(z, known[0]), z], axis=1)
    joint = np.exp(np.asarray(prior.log_prob(params, points), np.float64))
    cdf = np.concatenate([[0], np.cumsum(np.diff(z) * (joint[1:] + joint[:-1]) / 2)])
    assert stats.kstest(drawn[:, 1], lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue > 1e-3
    marginal = prior.sample(jax.random.key(1), table, (4000,))[:, 1]  # which a draw that ignores the first would have
    assert stats.kstest(np.asarray(marginal), lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue < 1e-6


def test_clusters_have_quantiles_and_densities(clustered):
    prior, params = clustered
    table, cluster = prior.tabulate(params), jnp.asarray([2, 0, 1])
    u = jnp.asarray([[0.1, 0.9], [0.5, 0.5], [0.7, 0.2]])
    z = prior.quantile_of_cluster(table, u, cluster)
    step = 0.02
    ends = [np.asarray(prior.density_of_cluster(params, z + side * step, cluster)) for side in (-1, 0, 1)]
    mass = step * (ends[0] + 4 * ends[1] + ends[2]) / 3  # Simpson's rule around each quantile, against draws
    for i, c in enumerate(cluster):
        drawn = np.asarray(prior.sample_of_cluster(jax.random.key(i), table, int(c), 20_000))
        below, inside = np.mean(drawn < z[i], axis=0), np.mean(np.abs(drawn - z[i]) < step, axis=0)
        assert np.all(np.abs(below - u[i]) < 4.5 * (0.25 / 20_000) ** 0.5)
        assert np.all(np.abs(inside - mass[i]) < 4.5 * np.sqrt(mass[i] / 20_000))


def test_clusters_of_narrow_types_do_not_overflow():
    """Row 2 x 130 of a table is none of 256."""
    prior = kaem.ClusteredPrior(num_latents=130, num_clusters=3, grid_size=2, base_scale=1.0)
    table, z = prior.tabulate(prior.init(jax.random.key(0))), jnp.full(130, 0.4)
    for function, values in ((prior.density_of_cluster, z), (prior.quantile_of_cluster, z)):
        np.testing.assert_array_equal(function(table, values, np.uint8(2)), function(table, values, 2))
    assert np.any(prior.density_of_cluster(table, z, 2) != prior.density_of_cluster(table, z, 0))


@pytest.mark.parametrize("kind", ["product", "mixture", "comonotone"])
def test_independent_coordinates_need_no_weights(kind):
    prior = make_prior(kind)
    params = prior.init(jax.random.key(0))
    is_known = np.arange(np.prod(prior.event_shape)).reshape(prior.event_shape) % 2 == 0
    known = np.full(prior.event_shape, 0.3, np.float32)
    found = sample_given(jax.random.key(1), prior, params, known, is_known, (5,))
    expected = prior.sample(jax.random.key(1), params, (5,))
    np.testing.assert_array_equal(found, np.where(is_known, known, expected))


def test_refusals(refuses, clustered):
    prior, params = clustered
    mixture, zero, none = kaem.MixturePrior(num_latents=2), np.zeros(2), np.zeros(2, bool)
    of_mixture, neural = mixture.init(jax.random.key(0)), kaem.NeuralPrior(num_latents=2, hidden=(3,))
    for arguments, parts in (
        ((prior, params, np.zeros(3), none), ["latent has shape (3,)"]),
        ((prior, params, zero, none[:1]), ["is_known has shape (1,)", "(2,)"]),
        ((neural, neural.init(jax.random.key(0)), zero, none), ["no exact draws"]),
    ):
        with refuses(ValueError, *parts):
            sample_given(jax.random.key(0), *arguments)
    with refuses(ValueError, "cluster=1 needs a clustered prior"):
        sample_given(jax.random.key(0), mixture, of_mixture, zero, none, cluster=1)
    with refuses(ValueError, "u=1.5"):
        prior.quantile_of_cluster(params, np.array([0.5, 1.5]), 0)
    with refuses(ValueError, "cluster=3", "0 to 2"):
        sample_given(jax.random.key(0), prior, params, zero, none, cluster=3)
