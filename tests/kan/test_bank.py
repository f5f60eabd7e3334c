"""Basis families and banks against scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline as ScipyBSpline

from kaem_jax.kan.activations import ACTIVATIONS, KINKS
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases.b_spline import BSpline, extended_knots
from kaem_jax.settings.registry import BASES

DEGREES = [1, 2, 3, 4, 5]


def uneven_grid(rng):
    return jnp.asarray(np.sort(np.concatenate([[-2.0, 3.0], rng.uniform(-2, 3, 9)])))


@pytest.mark.parametrize("degree", DEGREES)
def test_b_spline_equals_scipy(x64, rng, degree):
    grid = uneven_grid(rng)
    coefficients = rng.normal(size=grid.size - 1 + degree)
    x = np.concatenate([rng.uniform(-2, 3, 200), np.asarray(grid)])
    truth = ScipyBSpline(np.asarray(extended_knots(grid, degree)), coefficients, degree)
    basis = BSpline(degree)
    np.testing.assert_allclose(basis.evaluate(jnp.asarray(x), grid) @ coefficients, truth(x), atol=1e-12)
    slope = jax.vmap(jax.grad(lambda t: basis.evaluate(t, grid) @ coefficients))(jnp.asarray(x[:200]))
    np.testing.assert_allclose(slope, truth(x[:200], nu=1), atol=1e-9)


@pytest.mark.parametrize("degree", DEGREES)
def test_b_spline_in_float32_equals_scipy(rng, degree):
    grid = uneven_grid(rng).astype(jnp.float32)
    coefficients = rng.normal(size=grid.size - 1 + degree).astype(np.float32)
    x = rng.uniform(-2, 3, 200).astype(np.float32)
    knots = np.asarray(extended_knots(grid, degree), np.float64)
    truth = ScipyBSpline(knots, coefficients.astype(np.float64), degree)(x.astype(np.float64))
    np.testing.assert_allclose(BSpline(degree).evaluate(jnp.asarray(x), grid) @ coefficients, truth, atol=2e-6)


@pytest.mark.parametrize("degree", DEGREES)
def test_b_splines_are_a_partition_of_unity_closed_at_both_ends(rng, degree):
    grid = uneven_grid(rng).at[4:6].set(0.5).sort()  # a repeated breakpoint
    at_ends = jnp.asarray([grid[0], grid[-1], jnp.nextafter(grid[-1], 0), grid[0] - 1, grid[-1] + 1])
    x = jnp.concatenate([at_ends, grid, jnp.asarray(rng.uniform(-2, 3, 100), jnp.float32)])
    features = BSpline(degree).evaluate(x, grid)
    assert features.shape == (x.size, grid.size - 1 + degree)
    np.testing.assert_allclose(jnp.sum(features, axis=-1), 1, atol=1e-6)
    assert np.all(np.asarray(features) >= -1e-6)
    assert np.all(np.sum(np.asarray(features) != 0, axis=-1) <= degree + 1)


def test_repeated_breakpoints_at_the_ends_stay_finite():
    grid = jnp.asarray([0.0, 0.0, 0.0, 1.0, 2.0, 2.0])
    x = jnp.asarray([0.0, 0.5, 1.0, 1.5, 2.0])
    features = BSpline(3).evaluate(x, grid)
    np.testing.assert_allclose(jnp.sum(features, axis=-1), 1, atol=1e-6)
    gradient = jax.jacfwd(lambda t: BSpline(3).evaluate(t, grid))(x)
    assert np.all(np.isfinite(np.asarray(gradient)))


def test_rbf_closed_form(x64, rng):
    grid = jnp.linspace(-1.0, 1.0, 5)
    basis = BASES.make("rbf")
    x = jnp.asarray(rng.uniform(-1, 1, 20))
    features = basis.evaluate(x, grid, basis.init_scale(grid))
    np.testing.assert_allclose(features, np.exp(-0.5 * ((np.asarray(x)[:, None] - grid) / 0.5) ** 2), atol=1e-12)


@pytest.mark.parametrize("name", list(BASES))
@pytest.mark.parametrize(("inner", "shared"), [(4, True), (24, True), (4, False)])  # B-splines treat 24 another way
def test_every_way_to_evaluate_a_bank_agrees(name, inner, shared, rng):
    """At points, on intervals and as a layer: one function."""
    bank = FunctionBank(outer=3, inner=inner, basis=BASES.make(name), num_intervals=5, shared_grid=shared)
    params = bank.init(jax.random.key(0))
    grid = params["grid"]
    assert grid.shape == (3, 1 if shared else 4, 6)
    inside = jnp.asarray(rng.uniform(0.01, 0.99, (*grid.shape[:2], 5, 7)), jnp.float32)

    @jax.jit
    def every_way(params, inside):
        x = grid[..., :-1, None] + jnp.diff(grid)[..., None] * inside  # [Q, P', N, R], by interval
        points = jnp.moveaxis(x, (2, 3), (0, 1))
        offset = jnp.sin(5 * x)
        on_intervals = jnp.moveaxis(bank.evaluate_on_intervals(params, x, offset) - offset, (2, 3), (0, 1))
        at_points = bank.evaluate(params, points)
        features = bank.basis.evaluate(points, grid, params.get("scale"))
        dense = jnp.sum(features * (params["basis_weight"][..., None] * params["coefficients"]), axis=-1)
        expected = dense + params["base_weight"] * jax.nn.silu(points)
        layer = bank.contract(params, points[..., 0]) if shared else jnp.sum(expected, axis=-2)
        return on_intervals, at_points, expected, layer

    on_intervals, at_points, expected, layer = every_way(params, inside)
    assert at_points.shape == (5, 7, 3, inner)
    np.testing.assert_allclose(on_intervals, at_points, atol=2e-6)
    np.testing.assert_allclose(at_points, expected, atol=2e-6)
    np.testing.assert_allclose(layer, jnp.sum(expected, axis=-2), atol=1e-5)


def test_kinks_are_where_activations_are_not_smooth():
    """Every activation with a jump in its second derivative is listed with its kink, and no smooth one is."""
    for name, function in ACTIVATIONS.items():
        if function is None:
            continue
        for point in (-3.0, 0.0, 3.0):
            slope = jax.grad(lambda t, f=function: f(t).sum())
            bend = jax.grad(lambda t, g=slope: g(t).sum())
            left, right = (
                np.array([slope(jnp.float32(point + e)), bend(jnp.float32(point + e))]) for e in (-1e-3, 1e-3)
            )
            assert (np.max(np.abs(left - right)) > 0.1) == (point in KINKS.get(name, ())), (name, point)
