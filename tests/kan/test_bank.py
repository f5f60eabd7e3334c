"""Basis families and banks against scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline as ScipyBSpline

from kaem_jax.kan.activations import ACTIVATIONS, KINKS
from kaem_jax.kan.bank import FunctionBank
from kaem_jax.kan.bases.b_spline import BSpline
from kaem_jax.settings.registry import BASES

# The default first, which the fast tier has.
DEGREES = [3, 1, 2, 4, 5]


@pytest.mark.sweep
@pytest.mark.parametrize("degree", DEGREES)
def test_b_spline_equals_scipy(x64, rng, degree):
    """In float64 with its slope, in float32 to its rounding; a partition of unity that is closed at both ends."""
    count = 9
    coefficients, basis = rng.normal(size=count + degree), BSpline(degree)
    u = np.concatenate([rng.uniform(0, count, 200), np.arange(count + 1)]).astype(np.float32)
    evaluate = jax.jit(lambda u: basis.evaluate(u, count))
    narrow = evaluate(u)
    u = u.astype(float)
    truth = ScipyBSpline(np.arange(-degree, count + degree + 1), coefficients, degree)
    features, slope = jax.jit(lambda u: jax.jvp(evaluate, (u,), (jnp.ones_like(u),)))(u)
    np.testing.assert_allclose(features @ coefficients, truth(u), atol=1e-12)
    np.testing.assert_allclose(slope[:200] @ coefficients, truth(u[:200], nu=1), atol=1e-9)
    np.testing.assert_allclose(narrow, features, atol=1e-6)
    assert np.all(np.sum(np.asarray(narrow) != 0, axis=-1) <= degree + 1)
    outside = evaluate(np.array([0.0, count, -1, count + 1]))
    np.testing.assert_array_equal(outside[2:], outside[:2])


@pytest.mark.sweep
@pytest.mark.parametrize(
    "name", ["b_spline", *(name for name in BASES if name != "b_spline")]
)  # the fast tier has three
@pytest.mark.parametrize("log_spaced", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_every_way_to_evaluate_a_bank_agrees(name, shared, log_spaced, rng):
    """At arguments, at the same points and as a layer: one function."""
    domain = (0.5, 8.0) if log_spaced else (-3.0, 3.0)
    bank = FunctionBank(
        outer=3, inner=4, basis=BASES.get(name)(), num_intervals=5, domain=domain, log_spaced=log_spaced, shared=shared
    )
    params = jax.jit(bank.init)(jax.random.key(0)) | {"basis_weight": np.float32(rng.uniform(1, 2, (3, 4)))}
    if "scale" in params:
        assert params["scale"].shape[:2] == bank.argument_shape
        params["scale"] = params["scale"] + np.float32(rng.uniform(-0.3, 0.3, params["scale"].shape))
    points = np.float32(rng.uniform(*domain, 7))

    @jax.jit
    def every_way(params):
        wide = jnp.broadcast_to(jnp.asarray(points)[:, None, None], (7, *bank.argument_shape))
        u = jnp.log(wide / 0.5) / np.log(16) if log_spaced else (wide + 3) / 6
        features = bank.basis.evaluate(5 * u, 5, params.get("scale"))
        dense = jnp.sum(features * (params["basis_weight"][..., None] * params["coefficients"]), axis=-1)
        expected = dense + params["base_weight"] * jax.nn.silu(wide)
        layer = bank.contract(params, wide[..., 0]) if shared else jnp.sum(expected, axis=-2)
        return jnp.moveaxis(bank.evaluate_all(params, points), -1, 0), bank.evaluate(params, wide), expected, layer

    everywhere, at_arguments, expected, layer = every_way(params)
    assert expected.shape == (7, 3, 4)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(everywhere, expected, atol=2e-6)
    np.testing.assert_allclose(at_arguments, expected, atol=2e-6)
    np.testing.assert_allclose(layer, np.sum(expected, axis=-2), atol=1e-5)


def test_kinks_are_where_activations_are_not_smooth():
    """Every activation with a jump in its second derivative is listed with its kink, and no smooth one is."""
    points, functions = np.array([-3.0, 0.0, 3.0], np.float32), {n: f for n, f in ACTIVATIONS.items() if f is not None}

    @jax.jit
    def slopes_and_bends(t):
        derivatives = {name: (jax.grad(f), jax.grad(jax.grad(f))) for name, f in functions.items()}
        return {name: [jax.vmap(jax.vmap(g))(t) for g in both] for name, both in derivatives.items()}

    for name, found in slopes_and_bends(points + np.float32([[-1e-3], [1e-3]])).items():
        jump = np.abs(np.diff(np.array(found), axis=1)).max(axis=(0, 1))
        np.testing.assert_array_equal(jump > 0.1, np.isin(points, KINKS.get(name, ())), err_msg=name)
