"""The public face of a prior: static, pure, composable, and clear when it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.priors import univariate
from tests.builders import Compiled, make_prior
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
        bound = prior.bind(params)
        z = bound.sample(key, (5, 4))
        none = bound.sample(key, (0,))
        log_prob, features = prior.bind(params).log_prob(z), bound.features(z)
        found = [z, log_prob, features, none, bound.sample(key)]
        return found + ([bound.quantile(none), prior.bind(params).log_normalizer()] if prior.has_quantiles else [])

    expected = [(5, 4, *event_shape), (5, 4), (5, 4, 3), (0, *event_shape), event_shape]
    if prior.has_quantiles:
        expected += [(0, *prior.value_shape), (3, 2)]
    assert [leaf.shape for leaf in jax.eval_shape(shapes, key)] == expected
    many = jax.eval_shape(jax.vmap(shapes), jax.random.split(key, 6))
    assert [leaf.shape for leaf in many] == [(6, *shape) for shape in expected]
    assert {leaf.dtype for leaf in many} == {jnp.dtype("float32")}


def test_responsibilities_are_those_of_the_components(rng):
    """By their proportions and densities (mistake 10)."""
    prior = kaem.MixturePrior(num_latents=2, num_components=3, proportions="learned", grid_size=8)
    shapes, alpha = jax.eval_shape(prior.init, jax.random.key(0)), np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    params = jax.tree.map(lambda leaf: rng.uniform(-2, 2, leaf.shape), shapes) | {"logits": np.log(alpha)}
    z = np.float32(rng.normal(size=(50, 2)))
    truth = densities(params, prior.bank, "b_spline", 3, "silu", "gaussian")
    pdf = np.array([[truth[q][p].pdf(z[:, q]) for p in range(3)] for q in range(2)])
    weights = alpha * np.moveaxis(pdf, -1, 0)
    expected = weights / weights.sum(-1, keepdims=True)
    found = Compiled(prior.bind(params)).log_responsibilities(z)
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-4)


def test_many_draws_are_those_of_few(monkeypatch, rng):
    """More than so many values go through in parts, here in five of which the last is filled up; with and without rows.

    A program of another size may round a last digit otherwise."""
    monkeypatch.setattr(univariate, "_MAX_VALUES_AT_ONCE", 120)
    u, row = np.float32(rng.uniform(size=(251, 2))), rng.integers(2, size=(251, 2))
    prior = make_prior("mixture", basis="rbf", base_density="uniform")
    bound = prior.bind(prior.init(jax.random.key(0)))
    by_row = jax.jit(bound.table.quantile)
    whole = [bound.quantile(u), by_row(u, row)]
    monkeypatch.undo()
    parts = [(bound.quantile(u[at]), by_row(u[at], row[at])) for at in (slice(100), slice(151, 251))]
    for found, first, last in zip(whole, *parts, strict=True):
        assert found.shape == u.shape
        np.testing.assert_array_max_ulp(np.asarray(found)[:100], np.asarray(first), maxulp=2)
        np.testing.assert_array_max_ulp(np.asarray(found)[151:], np.asarray(last), maxulp=2)
