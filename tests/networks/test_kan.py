"""The KAN decoder: its start, its formula, and layers whose grids follow their inputs."""

import functools

import jax
import numpy as np
import pytest
from scipy import special

import kaem_jax as kaem
from kaem_jax.kan.bases import BSpline
from kaem_jax.networks.kan import KanDecoder
from kaem_jax.settings.registry import BASES


def test_layers_start_so_that_outputs_keep_their_scale():
    """Coefficients of deviation 0.1 / sqrt(fan in), base weights that keep a unit variance; each layer its own key."""
    params = kaem.KAN(hidden=(100,), grid_size=2).decoder(40, (100,), (100,)).init(jax.random.key(0))
    for i, fan_in in enumerate((40, 100)):
        coefficients, base = params[f"bank_{i}"]["coefficients"], params[f"bank_{i}"]["base_weight"]
        assert np.std(coefficients) * fan_in**0.5 == pytest.approx(0.1, rel=0.04)
        assert np.std(base) * (0.356 * fan_in) ** 0.5 == pytest.approx(1, rel=0.06)
    first, second = (params[f"bank_{i}"]["base_weight"][:40].ravel() for i in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


@pytest.mark.slow
def test_a_kan_of_degree_1_is_made_of_straight_lines_on_its_domain(rng):
    """Between breakpoints, at which each coefficient is a height; beyond the ends only the base activation changes."""
    settings = {"hidden": (2,), "grid_size": 5, "domain": (-2.0, 1.0), "basis": BSpline(1), "output": "sigmoid"}
    network = kaem.KAN(**settings).decoder(2, (3, 1), (3, 1))
    params = jax.tree.map(
        lambda leaf: 3 * leaf if leaf.shape[-1] != 6 or leaf.shape[1] > 1 else leaf, network.init(jax.random.key(0))
    )
    x = rng.uniform(-3, 2, (50, 2)).astype(np.float32)
    expected, grid = x, np.linspace(-2, 1, 6)
    for i in range(2):
        bank = jax.device_get(params[f"bank_{i}"])
        heights = bank["basis_weight"][..., None] * bank["coefficients"]
        lines = [sum(np.interp(expected[:, q], grid, heights[q, p]) for q in range(2)) for p in range(3 - (i == 0))]
        assert np.abs(lines).max() > 0.05  # so that other lines would be seen
        expected = np.stack(lines, axis=1) + (expected * special.expit(expected)) @ bank["base_weight"]
    np.testing.assert_allclose(network.apply(params, x)[..., 0], special.expit(expected), atol=1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("basis", ["b_spline", "rbf"])
def test_layers_follow_their_inputs(rng, basis):
    """Every layer gets its own range; the network computes what it computed."""
    network = KanDecoder((2, 4, 3), BASES.get(basis)(), 8, (-3.0, 3.0), (3,))
    params = network.init(jax.random.key(0))
    features = np.float32(1.5 * rng.normal(size=(1000, 2)))
    reach = 3 * features[:50]  # draws of the prior lie further apart than those of a minibatch: grids reach them too
    update = jax.jit(functools.partial(network.update_grids, uniform_fraction=0.5))
    new, change = update(params, features, reach=reach, max_change=1.0)
    everything = np.concatenate([features, reach])
    of_layers = jax.jit(network.layer_inputs)
    inputs = jax.device_get(of_layers(params, everything))
    for i, bank in enumerate(network.layers):
        grid, own = np.asarray(new[f"bank_{i}"]["grid"])[:, 0], inputs[i][: len(features)]
        ends = np.stack([inputs[i].min(axis=0), inputs[i].max(axis=0)], axis=-1)
        np.testing.assert_allclose(grid[:, [0, -1]], ends, rtol=1e-5)
        middle = 0.5 * ends.mean(axis=-1) + 0.5 * np.median(own, axis=0)
        np.testing.assert_allclose(grid[:, 4], middle, atol=1e-3)
        # Of each layer, its outputs for the inputs that it had.
        moved = np.asarray(jax.jit(bank.contract)(new[f"bank_{i}"], inputs[i])) - inputs[i + 1]
        expected = np.sqrt(np.mean(moved**2) / np.mean(np.var(inputs[i + 1], axis=0)))
        assert float(change[i]) == pytest.approx(expected, rel=0.02)
    before, after = (np.asarray(jax.jit(network.apply)(own, everything)) for own in (params, new))
    assert np.std(before - after) < 0.03 * np.std(before)
    least, most = sorted(map(float, change))
    some, again = update(params, features, reach=reach, max_change=(least + most) / 2)
    np.testing.assert_allclose(again, change, rtol=0.02)
    for i in range(2):
        kept = np.array_equal(some[f"bank_{i}"]["grid"], params[f"bank_{i}"]["grid"])
        assert kept == (float(change[i]) == most)
    features[0, 0] = np.inf
    bad, change = update(params, features, reach=reach, max_change=1.0)
    assert np.isnan(change[0])
    jax.tree.map(np.testing.assert_array_equal, bad["bank_0"], params["bank_0"])
