"""The public face of a prior: static, pure, composable, and clear when it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from scipy import stats

import kaem_jax as kaem
from tests.builders import PRIOR_KINDS, make_prior, wild_prior
from tests.truth import densities


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "event_shape"), [("product", (3, 2)), ("mixture", (3,))])
def test_shapes_and_composition(kind, event_shape):
    prior = make_prior(kind, 3, 2)
    assert prior.event_shape == event_shape
    assert hash(prior) == hash(make_prior(kind, 3, 2))
    params = prior.init(jax.random.key(0))
    table = prior.tabulate(params)
    z = prior.sample(jax.random.key(1), table, (5, 4))
    assert z.shape == (5, 4, *event_shape)
    assert z.dtype == jnp.float32
    assert prior.log_prob(params, z).shape == (5, 4)
    assert prior.log_normalizer(params).shape == (3, 2)
    assert prior.features(table, z).shape == (5, 4, 3)
    # One draw without a leading axis, vmap over keys, and a static argument of jit.
    assert prior.sample(jax.random.key(1), table).shape == event_shape
    keys = jax.random.split(jax.random.key(2), 6)
    assert jax.vmap(lambda key: prior.sample(key, table, (2,)))(keys).shape == (6, 2, *event_shape)
    jitted = jax.jit(lambda p, prior, z: prior.log_prob(p, z), static_argnums=1)
    np.testing.assert_allclose(jitted(params, prior, z), prior.log_prob(params, z), rtol=1e-5)
    # A batch of parameters, each with its own table.
    many = jax.vmap(prior.init)(keys)
    assert jax.vmap(lambda p, key: prior.sample(key, prior.tabulate(p), (2,)))(many, keys).shape == (6, 2, *event_shape)


def test_product_features_are_the_inner_sum():
    prior = kaem.ProductPrior(num_latents=2, num_terms=3)
    z = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(prior.features(prior.tabulate(prior.init(jax.random.key(0))), z), [3, 12])


def test_learned_proportions_weigh_the_components():
    """alpha is the component probability in sampling as in training (mistake 10)."""
    prior = kaem.MixturePrior(num_latents=1, num_components=2, proportions="learned", base_activation="none")
    params = prior.init(jax.random.key(0))
    # Two well separated components: energies that fall steeply on one side.
    slope = jnp.linspace(-3, 3, params["bank"]["coefficients"].shape[-1])
    params["bank"]["coefficients"] = jnp.stack([10 * slope, -10 * slope])[None]
    params["logits"] = jnp.log(jnp.asarray([[0.2, 0.8]]))
    z = prior.sample(jax.random.key(1), prior.tabulate(params), (100_000,))
    assert abs(float(jnp.mean(z > 0)) - 0.2) < 5 * np.sqrt(0.16 / 100_000)


@pytest.mark.slow
def test_draws_come_with_the_component_that_made_them(rng):
    """Components occur with probability alpha, and the draws of each follow its own density (mistake 2)."""
    prior = kaem.MixturePrior(num_latents=2, num_components=3, proportions="learned", grid_size=8)
    params = prior.init(jax.random.key(0))
    params["bank"]["coefficients"] = jnp.asarray(rng.uniform(-4, 4, params["bank"]["coefficients"].shape), jnp.float32)
    alpha = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    params["logits"] = jnp.asarray(np.log(alpha), jnp.float32)
    count = 50_000
    z, component = prior.sample_with_component(jax.random.key(1), params, (count,))
    assert z.shape == component.shape == (count, 2)
    truth = densities(params, "b_spline", 3, "silu", "gaussian")
    for q, p in np.ndindex(2, 3):
        chosen = np.asarray(component[:, q]) == p
        assert abs(chosen.mean() - alpha[q, p]) < 5 * np.sqrt(alpha[q, p] / count)
        ours = np.sort(np.asarray(z[chosen, q], np.float64))[::10]
        assert stats.kstest(truth[q][p].cdf(ours), "uniform").pvalue > 1e-4
    weights = alpha[None] * np.array([[truth[q][p].pdf(z[:50, q]) for p in range(3)] for q in range(2)]).transpose(
        2, 0, 1
    )
    expected = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(jnp.exp(prior.log_responsibilities(params, z[:50])), expected, atol=1e-4)


def test_flat_is_uniform():
    flat, uniform = (kaem.ProductPrior(num_latents=1, num_terms=1, base_density=name) for name in ("flat", "uniform"))
    assert flat.base == uniform.base


def test_no_draws_are_no_draws():
    for kind in ("product", "clustered"):
        prior = make_prior(kind)
        params = prior.init(jax.random.key(0))
        table = prior.tabulate(params)
        assert prior.sample(jax.random.key(1), table, (0,)).shape[0] == 0
        assert prior.quantile(table, jnp.zeros((0, *prior.event_shape))).shape == (0, *prior.event_shape)


@pytest.mark.slow
def test_many_draws_are_inverted_in_chunks_of_the_same_values(rng):
    """More values than are searched at once, and no multiple of a chunk: as when few are asked for."""
    prior = kaem.MixturePrior(num_latents=40, num_components=2)
    table = prior.tabulate(prior.init(jax.random.key(0)))
    u = jnp.asarray(rng.uniform(size=(27_001, 40)), jnp.float32)  # 2.06 chunks
    z = prior.quantile(table, u)
    assert z.shape == u.shape
    # A program of another size may round a last digit otherwise.
    np.testing.assert_array_max_ulp(np.asarray(z[-2_000:]), np.asarray(prior.quantile(table, u[-2_000:])), maxulp=2)
    np.testing.assert_array_max_ulp(np.asarray(z[:10]), np.asarray(prior.quantile(table, u[:10])), maxulp=2)


def calls_of(bound, key, z, u):
    """What a bound prior says of latents and levels."""
    draws = bound.sample(key, (3,))
    found = {"sample": draws, "log_prob": bound.log_prob(draws), "features": bound.features(draws)}
    if not bound.prior.has_quantiles:
        return found
    return found | {"cdf": bound.cdf(z), "density": bound.density(z), "quantile": bound.quantile(u)}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", PRIOR_KINDS)
def test_a_bound_prior_is_the_prior_at_its_parameters(kind):
    """Outside and inside jit, under vmap over parameters, and on the devices of a mesh."""
    prior, key = make_prior(kind), jax.random.key(1)
    many = jax.vmap(prior.init)(jax.random.split(jax.random.key(0), 2))
    params = jax.tree.map(lambda leaf: leaf[0], many)
    z = jax.random.normal(jax.random.key(2), (4, *prior.centred.event_shape))
    u = jax.random.uniform(jax.random.key(3), (4, *prior.event_shape), minval=0.1, maxval=0.9)
    table = prior.tabulate(params)
    draws = prior.sample(key, table, (3,))
    expected = {"sample": draws, "log_prob": prior.log_prob(params, draws), "features": prior.features(table, draws)}
    if prior.has_quantiles:
        expected |= {name: getattr(prior, name)(table, z) for name in ("cdf", "density")}
        expected["quantile"] = prior.quantile(table, u)
    bound = prior.bind(params)
    together = jax.vmap(lambda params: calls_of(prior.bind(params), key, z, u))(many)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    on_devices = jax.shard_map(
        lambda bound, z, u: calls_of(bound, key, z, u),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data"), PartitionSpec("data")),
        out_specs={
            name: PartitionSpec("data" if name in ("cdf", "density", "quantile") else None) for name in expected
        },
    )
    for found in (
        calls_of(bound, key, z, u),
        jax.jit(calls_of)(bound, key, z, u),
        jax.tree.map(lambda leaf: leaf[0], together),
        jax.jit(on_devices)(bound, z, u),
    ):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["product", "mixture", "clustered"])
def test_a_bound_prior_has_the_gradients_of_the_prior(kind):
    """In the parameters, through the table, and in the latents."""
    prior, params = wild_prior(kind, size=2.0)
    z = 0.7 * jax.random.normal(jax.random.key(2), (5, *prior.event_shape))

    def through_bind(params, z):
        bound = prior.bind(params)
        return jnp.sum(bound.log_prob(z)) + jnp.sum(bound.cdf(z) ** 2)

    def directly(params, z):
        return jnp.sum(prior.log_prob(params, z)) + jnp.sum(prior.cdf(prior.tabulate(params), z) ** 2)

    found, expected = (jax.grad(function, argnums=(0, 1))(params, z) for function in (through_bind, directly))
    assert float(jnp.abs(expected[0]["bank"]["coefficients"]).max()) > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    slopes = jax.grad(lambda bound: jnp.sum(bound.log_prob(z)))(prior.bind(params))  # a pytree, also of tangents
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))
