"""The public face of a prior: static, pure, composable, and clear when it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.priors import inverse_transform
from tests.builders import PRIOR_KINDS, make_prior
from tests.truth import densities


@pytest.mark.parametrize(
    ("kind", "event_shape"),
    [("product", (3, 2)), ("mixture", (3,)), ("clustered", (3,)), ("comonotone", (2,)), ("neural", (3,))],
)
@pytest.mark.slow
def test_shapes_and_composition(kind, event_shape):
    """One draw without a leading axis, none at all, a vmap over keys and one over parameters with their own tables."""
    prior, key = make_prior(kind, 3, 2), jax.random.key(0)
    assert hash(prior) == hash(make_prior(kind, 3, 2))
    assert prior.event_shape == event_shape

    def shapes(key):
        params = prior.init(key)
        table = prior.tabulate(params)
        z = prior.sample(key, table, (5, 4))
        none = prior.sample(key, table, (0,))
        log_prob, features = prior.log_prob(params, z), prior.features(table, z)
        found = [z, log_prob, features, none, prior.sample(key, table)]
        return found + ([prior.quantile(table, none), prior.log_normalizer(params)] if prior.has_quantiles else [])

    expected = [(5, 4, *event_shape), (5, 4), (5, 4, 3), (0, *event_shape), event_shape]
    if prior.has_quantiles:
        expected += [(0, *prior.centred.event_shape), (3, 2)]
    assert [leaf.shape for leaf in jax.eval_shape(shapes, key)] == expected
    many = jax.eval_shape(jax.vmap(shapes), jax.random.split(key, 6))
    assert [leaf.shape for leaf in many] == [(6, *shape) for shape in expected]
    assert {leaf.dtype for leaf in many} == {jnp.dtype("float32")}


def test_responsibilities_are_those_of_the_components(rng):
    """By their proportions and densities (mistake 10)."""
    prior = kaem.MixturePrior(num_latents=2, num_components=3, proportions="learned", grid_size=8)
    params = prior.init(jax.random.key(0))
    params["bank"]["coefficients"] = jnp.asarray(rng.uniform(-4, 4, params["bank"]["coefficients"].shape), jnp.float32)
    alpha = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    params["logits"] = jnp.asarray(np.log(alpha), jnp.float32)
    z = np.float32(rng.normal(size=(50, 2)))
    truth = densities(params, prior.bank, "b_spline", 3, "silu", "gaussian")
    pdf = np.array([[truth[q][p].pdf(z[:, q]) for p in range(3)] for q in range(2)])
    weights = alpha * np.moveaxis(pdf, -1, 0)
    expected = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(prior.log_responsibilities(params, z)), expected, atol=1e-4)


def test_many_draws_are_those_of_few(monkeypatch, rng):
    """More than so many values go through in parts, here in five of which the last is filled up; with and without rows.

    A program of another size may round a last digit otherwise."""
    monkeypatch.setattr(inverse_transform, "_MAX_VALUES_AT_ONCE", 120)
    u, row = jnp.asarray(rng.uniform(size=(251, 2)), jnp.float32), jnp.asarray(rng.integers(2, size=(251, 2)))
    prior = make_prior("mixture", basis="rbf", base_density="uniform")
    table, by_row = prior.tabulate(prior.init(jax.random.key(0))), jax.jit(inverse_transform.quantile, static_argnums=0)
    whole = [prior.quantile(table, u), by_row(prior.base, table, u, row)]
    monkeypatch.undo()
    parts = [
        (prior.quantile(table, u[at]), by_row(prior.base, table, u[at], row[at]))
        for at in (slice(100), slice(151, 251))
    ]
    for found, first, last in zip(whole, *parts, strict=True):
        assert found.shape == u.shape
        np.testing.assert_array_max_ulp(np.asarray(found)[:100], np.asarray(first), maxulp=2)
        np.testing.assert_array_max_ulp(np.asarray(found)[151:], np.asarray(last), maxulp=2)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["clustered", *(kind for kind in PRIOR_KINDS if kind != "clustered")])
@pytest.mark.slow
def test_a_bound_prior_is_the_prior_at_its_parameters(kind):
    prior, key = make_prior(kind), jax.random.key(1)
    params = prior.init(jax.random.key(0))
    bound, table = prior.bind(params), prior.tabulate(params)
    z = prior.sample(key, table, (3,), "random" if kind == "neural" else "sobol")
    np.testing.assert_array_equal(bound.sample(key, (3,), "random" if kind == "neural" else "sobol"), z)
    np.testing.assert_array_equal(bound.log_prob(z), prior.log_prob(params, z))
    np.testing.assert_array_equal(bound.features(z), prior.features(table, z))
    if prior.has_quantiles:
        at, u = jnp.full(prior.centred.event_shape, 0.4), jnp.full(prior.event_shape, 0.3)
        for name, values in (("cdf", at), ("density", at), ("quantile", u)):
            found = getattr(bound, name)(values)
            np.testing.assert_array_equal(found, getattr(prior, name)(table, values))
            assert np.isfinite(found).all()
