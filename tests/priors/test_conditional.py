"""Draws given some coordinates: exact, with the known values untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.priors import sample_given
from tests.builders import bent, make_prior, wild
from tests.truth import assert_within


@pytest.fixture(scope="module")
def clustered():
    # As many latents as clusters: noise that is used twice would then be used for the same draw.
    prior = make_prior("clustered", 3, proportions="learned", spread=1.5, grid_size=3)
    params = bent(wild(prior.init(jax.random.key(6)), 1.0), 2) | {"logits": jnp.asarray([0.0, 0.7, -0.4])}
    return prior, params, prior.tabulate(params)


def test_the_others_follow_the_conditional_law(clustered):
    """Of the second latent, given the others: clusters weigh what they say of them."""
    prior, params, table = clustered
    known, is_known = np.array([2.0, 0.0, -2.0], np.float32), [True, False, True]
    drawn = np.asarray(sample_given(jax.random.key(0), prior, params, known, is_known, 4000, table=table))
    np.testing.assert_array_equal(drawn[:, ::2], np.tile(known[::2], (4000, 1)))
    z = np.linspace(-9, 9, 6001, dtype=np.float32)
    points = np.where(is_known, known, z[:, None])
    joint = np.exp(np.asarray(prior.log_prob(params, points, table), np.float64))
    cdf = np.concatenate([[0], np.cumsum(np.diff(z) * (joint[1:] + joint[:-1]) / 2)])
    assert stats.kstest(drawn[:, 1], lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue > 1e-3
    marginal = prior.sample(jax.random.key(1), table, (4000,))[:, 1]  # which a draw that ignores the first would have
    assert stats.kstest(np.asarray(marginal), lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue < 1e-6


@pytest.mark.slow
def test_clusters_have_quantiles_and_densities(clustered):
    """Against draws of each cluster, which `sample_given` gives too where nothing is known."""
    prior, params, table = clustered
    cluster, step, num = np.array([2, 0, 1], np.uint8), 0.05, 20_000
    u = jnp.asarray([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [0.7, 0.2, 0.8]])
    z = prior.quantile_of_cluster(table, u, cluster)
    ends = jnp.stack([z - step, z, z + step], axis=1)  # around each quantile, for Simpson's rule
    ends = np.asarray([prior.density(table.only(int(c)), at) for c, at in zip(cluster, ends, strict=True)], np.float64)
    mass = step * (ends[:, 0] + 4 * ends[:, 1] + ends[:, 2]) / 3
    nothing = np.zeros(3, bool)
    for i, c in enumerate(cluster):
        drawn = sample_given(jax.random.key(i), prior, params, np.zeros(3), nothing, num, table=table, cluster=int(c))
        assert_within(np.mean(drawn < z[i], axis=0), u[i], np.sqrt(u[i] * (1 - u[i]) / num), 4.5)
        assert_within(np.mean(np.abs(drawn - z[i]) < step, axis=0), mass[i], np.sqrt(mass[i] / num), 4.5)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product", "comonotone"])
def test_independent_coordinates_need_no_weights(kind):
    prior = make_prior(kind, basis="rbf", base_density="uniform")
    params = prior.init(jax.random.key(0))
    is_known = np.arange(np.prod(prior.event_shape)).reshape(prior.event_shape) % 2 == 0
    known = np.full(prior.event_shape, 0.3, np.float32)
    found = sample_given(jax.random.key(1), prior, params, known, is_known, (5,))
    expected = prior.sample(jax.random.key(1), params, (5,))
    np.testing.assert_array_equal(found, np.where(is_known, known, expected))


def test_refusals(refuses, clustered):
    prior, params, table = clustered
    mixture, zero, none = kaem.MixturePrior(num_latents=3), np.zeros(3), np.zeros(3, bool)
    neural, turned = kaem.NeuralPrior(num_latents=3, hidden=(3,)), make_prior("turned", 3)
    for arguments, cluster, parts in (
        ((prior, params, np.zeros(2), none), None, ["latent has shape (2,)"]),
        ((prior, params, zero, none[:1]), None, ["is_known has shape (1,)", "(3,)"]),
        ((prior, params, zero, none), 3, ["cluster=3", "0 to 2"]),
        ((neural, {}, zero, none), None, ["no exact draws"]),
        ((turned, {}, zero, none), 0, ["depend on each other", "map='diagonal'"]),
        ((mixture, {}, zero, none), 1, ["cluster=1 needs a clustered prior"]),
    ):
        with refuses(ValueError, *parts):
            sample_given(jax.random.key(0), *arguments, cluster=cluster)
    with refuses(ValueError, "u=1.5"):
        prior.quantile_of_cluster(table, np.array([0.5, 1.5, 0.1]), 0)
    with refuses(NotImplementedError, "quantile", "map='diagonal' only"):
        turned.quantile(turned.tabulate(turned.init(jax.random.key(0))), zero)
