"""Grid updates: densities stay, breakpoints go where they should, what would harm is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.networks.kan import KanDecoder
from kaem_jax.priors.grid_update import update_grid
from kaem_jax.settings.registry import BASES
from tests.builders import make_prior
from tests.truth import densities

OUTER, INNER = 3, 2


def smooth_prior(kind, basis, base, domain=(-3.0, 3.0), amplitude=0.5):
    prior = make_prior(kind, OUTER, INNER, basis=basis, base_density=base, domain=domain, coefficient_scale=0.0)
    params = prior.init(jax.random.key(0))
    # Energies that a spline can follow: a slow wave through the coefficients.
    num_features = params["bank"]["coefficients"].shape[-1]
    phase = jnp.arange(OUTER * INNER, dtype=float).reshape(OUTER, INNER, 1)
    params["bank"]["coefficients"] = amplitude * jnp.sin(jnp.linspace(0, 5, num_features) + phase)
    return prior, params


def members(prior, params, basis, base):
    """The components behind each latent, as float64 truth."""
    rows = densities(params, basis, 3, "silu", base)
    return rows if prior.event_shape == (OUTER,) else [[component] for row in rows for component in row]


def pdf(group, z):
    return np.mean([component.pdf(z) for component in group], axis=0)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kind", "basis", "base", "domain"),
    [
        ("product", "b_spline", "gaussian", (-3.0, 3.0)),
        ("mixture", "b_spline", "uniform", (-3.0, 3.0)),
        ("mixture", "rbf", "learnable_gaussian", (-5.0, 2.0)),
        ("product", "rswaf", "lognormal", (0.05, 8.0)),
    ],
)
def test_the_density_stays_and_the_table_follows_the_new_grid(kind, basis, base, domain):
    prior, params = smooth_prior(kind, basis, base, domain)
    new, info = update_grid(prior, params, uniform_fraction=0.25)
    assert np.all(np.asarray(info.accepted))
    assert np.abs(new["bank"]["grid"] - params["bank"]["grid"]).max() > 1e-2
    before, after = members(prior, params, basis, base), members(prior, new, basis, base)
    z = np.linspace(*((0.001, 30) if base == "lognormal" else (-8, 8) if base != "uniform" else domain), 40_001)
    reported = np.asarray(info.total_variation).ravel()
    for old, fresh, claim in zip(before, after, reported, strict=True):
        variation = 0.5 * np.trapezoid(np.abs(pdf(old, z) - pdf(fresh, z)), z)
        assert variation < 0.01
        np.testing.assert_allclose(claim, variation, rtol=0.1, atol=2e-4)
    # Mistake 15: a table on the old quadrature nodes would miss the new curve.
    table = prior.tabulate(new)
    u = np.random.default_rng(0).uniform(size=(200, *prior.event_shape)).astype(np.float32)
    at = np.asarray(prior.quantile(table, u)).reshape(200, -1)
    for i, group in enumerate(after):
        level = np.mean([component.cdf(at[:, i].astype(float)) for component in group], axis=0)
        resolution = 2e-6 + pdf(group, at[:, i]) * np.spacing(np.abs(at[:, i]))
        assert np.all(np.abs(level - u.reshape(200, -1)[:, i]) <= resolution)


@pytest.mark.slow
def test_breakpoints_mix_even_spacing_and_weighted_quantiles(rng):
    prior, params = smooth_prior("mixture", "b_spline", "gaussian")
    z = rng.normal(loc=0.5, scale=0.3, size=(4001, OUTER)).astype(np.float32)
    repeats = np.where(z[:, 0] > 0.5, 3, 1)
    weights = jnp.asarray(repeats / repeats.sum(), jnp.float32)
    new, _ = update_grid(prior, params, jnp.asarray(z), weights, uniform_fraction=0.3, max_total_variation=1.0)
    grid = np.asarray(new["bank"]["grid"])[:, 0]
    # The samples lie well inside the prior's own range, which the domain keeps.
    ends = jnp.broadcast_to(jnp.asarray([[1e-4], [1 - 1e-4]]), (2, OUTER))
    low, high = np.asarray(prior.quantile(prior.tabulate(params), ends))
    np.testing.assert_allclose(grid[:, 0], low, rtol=1e-5)
    np.testing.assert_allclose(grid[:, -1], high, rtol=1e-5)
    share = np.arange(21) / 20
    quantiles = np.quantile(np.repeat(z, repeats, axis=0), share, axis=0).T
    even = low[:, None] + (high - low)[:, None] * share
    np.testing.assert_allclose(grid[:, 1:-1], (0.3 * even + 0.7 * quantiles)[:, 1:-1], atol=2e-3)


@pytest.mark.slow
def test_the_domain_grows_on_both_sides_and_a_bounded_one_stays(rng):
    """Mistake 13: a negative end that is scaled instead of moved outward shrinks the domain."""
    z = jnp.asarray(rng.uniform(-7, 5, (4000, OUTER)), jnp.float32)
    prior, params = smooth_prior("mixture", "b_spline", "gaussian")
    grid = update_grid(prior, params, z, max_total_variation=1.0)[0]["bank"]["grid"]
    assert np.all(np.asarray(grid[..., 0]) < -6.9)
    assert np.all(np.asarray(grid[..., -1]) > 4.9)
    prior, params = smooth_prior("mixture", "b_spline", "uniform")
    grid = update_grid(prior, params, z, max_total_variation=1.0)[0]["bank"]["grid"]
    np.testing.assert_array_equal(grid[..., 0], -3)
    np.testing.assert_array_equal(grid[..., -1], 3)
    assert np.all(np.diff(np.asarray(grid)) >= 0)


@pytest.mark.slow
def test_what_is_not_finite_or_changes_too_much_is_refused(rng):
    prior, params = smooth_prior("mixture", "b_spline", "gaussian", amplitude=3.0)
    z = jnp.asarray(rng.normal(size=(500, OUTER)), jnp.float32).at[3, 1].set(jnp.nan)
    new, info = update_grid(prior, params, z, max_total_variation=1.0)
    np.testing.assert_array_equal(info.accepted, [True, False, True])
    for name, leaf in new["bank"].items():
        np.testing.assert_array_equal(leaf[1], params["bank"][name][1])
        assert np.all(np.isfinite(np.asarray(leaf)))
    rough = params | {
        "bank": params["bank"] | {"coefficients": 20 * jnp.asarray(rng.normal(size=(3, 2, 23)), jnp.float32)}
    }
    same, info = update_grid(prior, rough, uniform_fraction=0.0, max_total_variation=1e-3)
    assert not np.any(np.asarray(info.accepted))
    jax.tree.map(np.testing.assert_array_equal, same, rough)


def test_grid_free_families_are_refused(refuses):
    prior = make_prior("mixture", basis="fourier")
    with refuses(ValueError, "basis=Fourier()", "such as b_spline"):
        update_grid(prior, prior.init(jax.random.key(0)))


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("basis", ["b_spline", "rbf"])
def test_layers_of_a_kan_decoder_follow_their_inputs(rng, basis):
    """Every layer gets its own range; the network computes what it computed."""
    network = KanDecoder((4, 8, 5), BASES.make(basis), 8, (-3.0, 3.0), (5,))
    params = network.init(jax.random.key(0))
    features = jnp.asarray(1.5 * rng.normal(size=(2000, 4)), jnp.float32)
    update = jax.jit(functools.partial(network.update_grids, uniform_fraction=0.5))
    new, change = update(params, features)
    for i, x in enumerate(network.layer_inputs(params, features)[:-1]):
        np.testing.assert_allclose(new[f"bank_{i}"]["grid"][:, 0, 0], jnp.min(x, axis=0), rtol=1e-5)
        np.testing.assert_allclose(new[f"bank_{i}"]["grid"][:, 0, -1], jnp.max(x, axis=0), rtol=1e-5)
    # Draws of the prior lie further apart than those of a minibatch: grids reach them too.
    reach = 3 * features[:50]
    wide, _ = update(params, features, reach=reach)
    for i, x in enumerate(network.layer_inputs(params, jnp.concatenate([features, reach]))[:-1]):
        np.testing.assert_allclose(wide[f"bank_{i}"]["grid"][:, 0, -1], jnp.max(x, axis=0), rtol=1e-5)
    by_quantiles = [
        network.update_grids(params, features, uniform_fraction=0.0, reach=points)[0]["bank_0"]["grid"]
        for points in (None, reach)
    ]
    np.testing.assert_allclose(*(grid[..., 1:-1] for grid in by_quantiles), rtol=1e-5)  # inside, they do not count
    one = update(params, features[:1], reach=reach)[0]["bank_0"]["grid"]
    assert np.all(one[..., -1] - one[..., 0] > 1)
    before, after = network.apply(params, features), network.apply(new, features)
    error = np.std(np.asarray(before - after)) / np.std(np.asarray(before))
    assert error < 0.02
    # Of each layer, its outputs for the inputs that it had.
    inputs = network.layer_inputs(params, features)
    for i, bank in enumerate(network.layers):
        was = np.asarray(inputs[i + 1])
        moved = np.asarray(bank.contract(new[f"bank_{i}"], inputs[i])) - was
        expected = np.sqrt(np.mean(moved**2) / np.mean(np.var(was, axis=0)))
        assert float(change[i]) == pytest.approx(expected, rel=0.02)
    least, most = sorted(map(float, change))
    some, again = network.update_grids(params, features, 0.5, max_change=(least + most) / 2)
    np.testing.assert_allclose(again, change, rtol=0.02)
    for i in range(2):
        kept = np.array_equal(some[f"bank_{i}"]["grid"], params[f"bank_{i}"]["grid"])
        assert kept == (float(change[i]) == most)
    bad, change = update(params, features.at[0, 0].set(jnp.inf))
    assert np.isnan(change[0])
    jax.tree.map(np.testing.assert_array_equal, bad["bank_0"], params["bank_0"])
