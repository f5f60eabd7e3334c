"""Weighted quantiles, grids between even ones and quantiles, and the refit of a bank, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases import BSpline
from kaem_jax.kan.grid import adapted_grid, fit_points, refit, sample_levels, weighted_quantiles


def test_a_point_is_in_the_middle_of_its_own_mass(rng):
    """Of points that weigh 1/4, 1/8 and 5/8, in any order, at the levels 1/8, 5/16 and 11/16 lie these points."""
    z, order = np.array([[0.0, 3.0], [1.0, -1.0], [5.0, 7.0]], np.float32), [2, 0, 1]
    weights = np.array([2, 1, 5], np.float32)
    levels = jnp.asarray([0.0, 0.125, 0.3125, 0.6875, 0.5, 1.0])
    found = weighted_quantiles(jnp.asarray(z[order]), jnp.asarray(weights[order]), levels)
    np.testing.assert_allclose(found[:, 0], [0, 0, 1, 5, 3, 5], rtol=1e-6)
    np.testing.assert_allclose(found[:2, 1], [-1, -1 + 4 * (0.125 - 0.0625) / (0.25 - 0.0625)], rtol=1e-6)
    even = weighted_quantiles(jnp.asarray(z), None, jnp.asarray([1 / 6, 0.5, 5 / 6]))
    np.testing.assert_allclose(even, np.sort(z, axis=0), atol=1e-5)


def test_a_grid_lies_between_even_spacing_and_quantiles():
    even = jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
    quantiles = jnp.asarray([-9.0, -3.0, 0.4, 0.6, 1.0])
    np.testing.assert_allclose(adapted_grid(quantiles, even, 1.0), even)
    np.testing.assert_allclose(adapted_grid(quantiles, even, 0.25), [-2, -1.75, 0.3, 0.7, 2], rtol=1e-6)
    np.testing.assert_allclose(sample_levels(4), [0, 0.25, 0.5, 0.75, 1])


def test_a_refit_keeps_what_a_finer_spline_can_say(rng):
    """On a grid that holds all the old breakpoints the functions are the same ones, base activation and all."""
    bank = FunctionBank(outer=2, inner=3, basis=BSpline(2), num_intervals=4, shared_grid=True, domain=(-2.0, 2.0))
    fine = FunctionBank(outer=2, inner=3, basis=BSpline(2), num_intervals=8, shared_grid=True, domain=(-2.0, 2.0))
    params = bank.init(jax.random.key(0)) | {"basis_weight": jnp.asarray(rng.uniform(1, 2, (2, 3)), jnp.float32)}
    grid = jnp.broadcast_to(jnp.linspace(-2, 2, 9), (2, 1, 9))
    points = jnp.moveaxis(fit_points(grid), -1, 0)
    assert points.shape == (64, 2, 1)

    @jax.jit
    def everything(z):
        new = refit(fine, params, grid, jnp.moveaxis(bank.evaluate(params, points), 0, -1))
        return new["basis_weight"], bank.evaluate(params, z), fine.evaluate(new, z)

    weight, before, after = everything(jnp.asarray(rng.uniform(-3, 3, (50, 2, 1)), jnp.float32))
    np.testing.assert_array_equal(weight, 1)
    assert np.std(before) > 0.05
    np.testing.assert_allclose(after, before, atol=1e-4)
