"""Draws given some coordinates: exact, with the known values untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.builders import bent, make_prior, wild
from tests.truth import assert_within


@pytest.fixture(scope="module")
def clustered():
    # As many latents as clusters: noise that is used twice would then be used for the same draw.
    prior = make_prior("clustered", 3, proportions="learned", spread=1.5, grid_size=3)
    params = bent(wild(jax.jit(prior.init)(jax.random.key(6)), 1.0), 2) | {"logits": jnp.asarray([0.0, 0.7, -0.4])}
    return prior.bind(params)


def test_the_others_follow_the_conditional_law(clustered):
    """Of the second latent, given the others: clusters weigh what they say of them."""
    bound = clustered
    known, is_known = np.array([2.0, 0.0, -2.0], np.float32), [True, False, True]
    drawn = np.asarray(jax.jit(lambda key: bound.sample_given(key, known, is_known, 4000))(jax.random.key(0)))
    np.testing.assert_array_equal(drawn[:, ::2], np.tile(known[::2], (4000, 1)))
    z = np.linspace(-9, 9, 6001, dtype=np.float32)
    points = np.where(is_known, known, z[:, None])
    joint = np.exp(np.asarray(bound.log_prob(points), np.float64))
    cdf = np.concatenate([[0], np.cumsum(np.diff(z) * (joint[1:] + joint[:-1]) / 2)])
    assert stats.kstest(drawn[:, 1], lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue > 1e-3
    marginal = bound.sample(jax.random.key(1), (4000,))[:, 1]  # which a draw that ignores the first would have
    assert stats.kstest(np.asarray(marginal), lambda at: np.interp(at, z, cdf / cdf[-1])).pvalue < 1e-6


@pytest.mark.slow
def test_clusters_have_quantiles(clustered):
    """Against draws of each cluster."""
    bound = clustered
    cluster, num = np.array([2, 0, 1], np.uint8), 20_000
    u = jnp.asarray([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [0.7, 0.2, 0.8]])
    z = bound.quantile_of_cluster(u, cluster)
    for i, c in enumerate(cluster):
        drawn = bound.sample_of_cluster(jax.random.key(i), int(c), num)
        assert_within(np.mean(drawn < z[i], axis=0), u[i], np.sqrt(u[i] * (1 - u[i]) / num), 4.5)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product", "comonotone"])
def test_independent_coordinates_need_no_weights(kind):
    prior = make_prior(kind, basis="rbf", base_density="uniform")
    params = jax.jit(prior.init)(jax.random.key(0))
    is_known = np.arange(np.prod(prior.event_shape)).reshape(prior.event_shape) % 2 == 0
    known = np.full(prior.event_shape, 0.3, np.float32)
    bound = prior.bind(params)
    found = bound.sample_given(jax.random.key(1), known, is_known, (5,))
    expected = bound.sample(jax.random.key(1), (5,))
    np.testing.assert_array_equal(found, np.where(is_known, known, expected))


def bound_at(key, kind):
    prior = make_prior(kind, 3)
    return prior.bind(prior.init(key))


def test_refusals(refuses, clustered):
    bound = clustered
    key, zero, none = jax.random.key(0), np.zeros(3), np.zeros(3, bool)
    for arguments, parts in (
        ((np.zeros(2), none), ["z has shape (2,)"]),
        ((zero, none[:1]), ["is_known has shape (1,)", "(3,)"]),
    ):
        with refuses(ValueError, *parts):
            bound.sample_given(key, *arguments)
    for kind in ("turned", "neural"):
        with refuses(NotImplementedError, "no exact draws", "depend on each other", "map='diagonal'"):
            jax.eval_shape(lambda key, kind=kind: bound_at(key, kind).sample_given(key, zero, none), key)
    with refuses(ValueError, "u=1.5"):
        bound.quantile_of_cluster(np.array([0.5, 1.5, 0.1]), 0)
    with refuses(NotImplementedError, "quantile", "map='diagonal' only"):
        jax.eval_shape(lambda key: bound_at(key, "turned").quantile(zero), key)
