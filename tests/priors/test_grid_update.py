"""Grid updates: densities stay, breakpoints go where they should, what would harm is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_jax.priors.grid_update import update_grid
from tests.builders import make_prior
from tests.truth import densities

OUTER, INNER = 3, 2


def smooth_prior(kind, basis="b_spline", base="gaussian", domain=(-3.0, 3.0), amplitude=0.5):
    """Energies that a spline can follow: a slow wave through the coefficients."""
    prior = make_prior(kind, OUTER, INNER, basis=basis, base_density=base, domain=domain, coefficient_scale=0.0)
    params = prior.init(jax.random.key(0))
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
        ("mixture", "b_spline", "uniform", (-3.0, 3.0)),
        ("product", "b_spline", "gaussian", (-3.0, 3.0)),
        ("mixture", "rbf", "learnable_gaussian", (-5.0, 2.0)),
        ("product", "rswaf", "lognormal", (0.05, 8.0)),
    ],
)
@pytest.mark.slow
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


def test_breakpoints_mix_even_spacing_and_weighted_quantiles_and_what_is_not_finite_is_refused(rng):
    """Samples of the first latent lie well inside the prior's own range, which the domain keeps; those of the second
    reach far out on both sides, and the domain with them (mistake 13); the third has one that is no number."""
    prior, params = smooth_prior("mixture", "rbf")
    z = (rng.normal(0.5, 0.3, (4001, OUTER)) * [1, 20, 1]).astype(np.float32)
    repeats = np.where(z[:, 0] > 0.5, 3, 1)
    weights, z[5, 2] = jnp.asarray(repeats / repeats.sum(), jnp.float32), np.nan
    new, info = update_grid(prior, params, jnp.asarray(z), weights, uniform_fraction=0.3, max_total_variation=1.0)
    np.testing.assert_array_equal(info.accepted, [True, True, False])
    for name, leaf in new["bank"].items():
        np.testing.assert_array_equal(leaf[2], params["bank"][name][2])
        assert np.all(np.isfinite(np.asarray(leaf)))
    grid = np.asarray(new["bank"]["grid"])[:, 0]
    own = np.asarray(prior.quantile(prior.tabulate(params), jnp.asarray([[1e-4] * OUTER, [1 - 1e-4] * OUTER])))
    share = np.arange(21) / 20
    quantiles = np.quantile(np.repeat(z, repeats, axis=0), np.clip(share, 1e-4, 1 - 1e-4), axis=0)
    low, high = np.minimum(own[0], quantiles[0]), np.maximum(own[1], quantiles[-1])
    np.testing.assert_allclose(grid[0, [0, -1]], own[:, 0], rtol=1e-5)
    np.testing.assert_allclose(grid[1, [0, -1]], quantiles[[0, -1], 1], rtol=0.1)
    mixed = 0.3 * (low + (high - low) * share[:, None]) + 0.7 * quantiles
    np.testing.assert_allclose(grid[0, 1:-1], mixed[1:-1, 0], atol=2e-3)


@pytest.mark.slow
def test_a_bounded_domain_stays_and_a_change_that_is_too_large_is_refused(rng):
    z = jnp.asarray(rng.uniform(-7, 5, (4000, OUTER)), jnp.float32)
    prior, params = smooth_prior("mixture", base="uniform")
    grid = update_grid(prior, params, z, max_total_variation=1.0)[0]["bank"]["grid"]
    np.testing.assert_array_equal(grid[..., 0], -3)
    np.testing.assert_array_equal(grid[..., -1], 3)
    assert np.all(np.diff(np.asarray(grid)) >= 0)
    prior, params = smooth_prior("mixture", amplitude=3.0)
    params["bank"]["coefficients"] = 20 * jnp.asarray(rng.normal(size=(3, 2, 23)), jnp.float32)
    same, info = update_grid(prior, params, uniform_fraction=0.0, max_total_variation=1e-3)
    assert not np.any(np.asarray(info.accepted))
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_grid_free_families_are_refused(refuses):
    prior = make_prior("mixture", basis="fourier")
    with refuses(ValueError, "basis=Fourier()", "such as b_spline"):
        update_grid(prior, {})
