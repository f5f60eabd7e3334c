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

# The default first, which the fast tier has.
DEGREES = [3, 1, 2, 4, 5]


@pytest.mark.sweep
@pytest.mark.parametrize("degree", DEGREES)
def test_b_spline_equals_scipy(x64, rng, degree):
    """In float64 with its slope, in float32 to its rounding; a partition of unity that is closed at both ends."""
    grid = jnp.asarray(np.sort(np.concatenate([[-2.0, 3.0], rng.uniform(-2, 3, 9)])), jnp.float32)
    coefficients, basis = rng.normal(size=grid.size - 1 + degree), BSpline(degree)
    x = np.concatenate([rng.uniform(-2, 3, 200), np.asarray(grid)]).astype(np.float32)
    evaluate = jax.jit(basis.evaluate)
    narrow = evaluate(x, grid)
    grid, x = grid.astype(float), x.astype(float)
    truth = ScipyBSpline(np.asarray(extended_knots(grid, degree)), coefficients, degree)
    features, slope = jax.jvp(lambda t: evaluate(t, grid), (jnp.asarray(x),), (jnp.ones_like(x),))
    np.testing.assert_allclose(features @ coefficients, truth(x), atol=1e-12)
    np.testing.assert_allclose(slope[:200] @ coefficients, truth(x[:200], nu=1), atol=1e-9)
    np.testing.assert_allclose(narrow, features, atol=1e-6)
    assert np.all(np.sum(np.asarray(narrow) != 0, axis=-1) <= degree + 1)
    outside = evaluate(np.asarray(grid)[[0, -1, 0, -1]] + [0, 0, -1, 1], grid)
    np.testing.assert_array_equal(outside[2:], outside[:2])


def test_repeated_breakpoints_stay_finite():
    """Inside and at the ends: the features still add up to one, and none is negative."""
    grid = jnp.asarray([0.0, 0.0, 0.0, 1.0, 1.5, 1.5, 1.5, 2.0, 2.0])
    x = jnp.asarray([0.0, 0.5, 1.0, 1.5, 1.7, 2.0])
    features, slope = jax.jit(lambda x: jax.jvp(lambda t: BSpline(3).evaluate(t, grid), (x,), (jnp.ones_like(x),)))(x)
    np.testing.assert_allclose(jnp.sum(features, axis=-1), 1, atol=1e-6)
    assert np.all(np.asarray(features) >= -1e-6)
    assert np.all(np.isfinite(np.asarray(slope)))


def test_rbf_starts_with_the_width_of_its_spacing(rng):
    grid, basis = jnp.linspace(-1.0, 1.0, 5), BASES.get("rbf")()
    x = rng.uniform(-1, 1, 20).astype(np.float32)
    features = basis.evaluate(jnp.asarray(x), grid, basis.init_scale(grid))
    np.testing.assert_allclose(features, np.exp(-0.5 * ((x[:, None] - grid) / 0.5) ** 2), atol=1e-6)


@pytest.mark.sweep
@pytest.mark.parametrize(("inner", "shared"), [(4, True), (24, True), (4, False)])  # B-splines treat 24 another way
@pytest.mark.parametrize("name", ["b_spline", *(name for name in BASES if name != "b_spline")])
def test_every_way_to_evaluate_a_bank_agrees(name, inner, shared, rng):
    """At points, on intervals and as a layer: one function."""
    bank = FunctionBank(outer=3, inner=inner, basis=BASES.get(name)(), num_intervals=5, shared_grid=shared)
    params = bank.init(jax.random.key(0))
    params["basis_weight"] = jnp.asarray(rng.uniform(1, 2, (3, inner)), jnp.float32)
    grid = params["grid"]
    assert grid.shape == (3, 1 if shared else inner, 6)
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
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(on_intervals, at_points, atol=2e-6)
    np.testing.assert_allclose(at_points, expected, atol=2e-6)
    np.testing.assert_allclose(layer, jnp.sum(expected, axis=-2), atol=1e-5)


def test_kinks_are_where_activations_are_not_smooth():
    """Every activation with a jump in its second derivative is listed with its kink, and no smooth one is."""
    points, functions = np.array([-3.0, 0.0, 3.0], np.float32), {n: f for n, f in ACTIVATIONS.items() if f is not None}

    @jax.jit
    def slopes_and_bends(t):
        derivatives = {name: (jax.grad(f), jax.grad(jax.grad(f))) for name, f in functions.items()}
        return {name: [jax.vmap(jax.vmap(g))(t) for g in both] for name, both in derivatives.items()}

    for name, found in slopes_and_bends(jnp.asarray(points + np.array([[-1e-3], [1e-3]], np.float32))).items():
        jump = np.abs(np.diff(np.array(found), axis=1)).max(axis=(0, 1))
        np.testing.assert_array_equal(jump > 0.1, np.isin(points, KINKS.get(name, ())), err_msg=name)
