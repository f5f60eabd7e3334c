"""The KAN decoder: its start and its formula."""

import jax
import numpy as np
import pytest
from scipy import special

import kaem_jax as kaem
from kaem_jax.kan.bases import BSpline


def test_layers_start_so_that_outputs_keep_their_scale():
    """Coefficients of deviation 0.1 / sqrt(fan in), base weights that keep a unit variance; each layer its own key."""
    params = jax.jit(kaem.KAN(hidden=(100,), grid_size=2).decoder(40, (100,), (100,)).init)(jax.random.key(0))
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
