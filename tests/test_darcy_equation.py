"""The solver of Darcy's equation in examples/, against series and by hand."""

import pathlib
import runpy
import sys

import numpy as np
import pytest

EXAMPLE = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "examples" / "darcy_equation.py"))
DarcyEquation, compare_pairs = EXAMPLE["DarcyEquation"], EXAMPLE["compare_pairs"]
EQUATION = DarcyEquation(contrast=7.0, scale=0.3, offset=-0.2)


@pytest.fixture
def pairs(rng):
    """Coefficients that are high on one side of a random line, and their solutions: [N, H, W] each."""
    place = np.stack(np.meshgrid(np.linspace(-1, 1, 10), np.linspace(-1, 1, 12), indexing="ij"), axis=-1)
    is_high = np.einsum("hwk,nk->nhw", place, rng.normal(size=(24, 2))) > 0.3 * rng.normal(size=(24, 1, 1))
    return is_high, EQUATION.pressure(is_high)


def test_a_constant_coefficient_has_the_series_of_the_square():
    """-c Laplace u = 1: sums of sines over odd wave numbers; the grid's error falls with the square of its spacing."""
    errors = []
    for size in (16, 32):
        side = size - 1 + 0.01 + 1.0
        place, odd = (np.arange(size) + 0.01) / side, np.arange(1, 200, 2)
        sine = np.sin(np.pi * np.outer(place, odd))
        series = 16 * side**2 / (np.pi**4 * np.outer(odd, odd) * (odd[:, None] ** 2 + odd**2))
        expected = 0.5 * sine @ series @ sine.T / 3 + 1
        found = DarcyEquation(contrast=3.0, scale=0.5, offset=1.0).pressure(np.ones((1, size, size), bool))[0]
        errors.append(np.abs(found - expected).max() / np.ptp(expected))
    assert errors[0] < 0.01
    assert errors[1] < 0.4 * errors[0]


def test_layers_are_passed_one_after_the_other():
    """Far from the other sides the equation is one-dimensional: what flows changes by the source only."""
    is_high = np.zeros((1, 20, 800), bool)
    is_high[:, 10:] = True
    u = DarcyEquation(contrast=9.0, scale=1.0, offset=0.0).pressure(is_high)[0, :, 400]
    # Half of the way between the nodes of the interface is in each layer: 1 / (1 / 2 + 1 / 18).
    flow = np.diff(u) * np.concatenate([np.full(9, 1.0), [1.8], np.full(9, 9.0)])
    np.testing.assert_allclose(np.diff(flow), -1, atol=1e-6)  # the source of each node


def test_samples_are_compared_with_the_solutions_of_their_own_coefficients(pairs):
    """True pairs with rough coefficients are as good as held-out ones; those that do not belong together are not."""
    is_high, pressure = pairs
    found, twice = EQUATION.fit(is_high, pressure), 2 * pressure - EQUATION.offset
    assert (found.contrast, found.scale, found.offset) == pytest.approx((7.0, 0.3, -0.2), rel=1e-3)
    assert EQUATION.relative_l2(is_high, pressure) < 1e-12 < EQUATION.relative_l2(is_high, twice) == pytest.approx(1)
    real, rough = np.stack([is_high, pressure], axis=-1), np.where(is_high, 0.6, 0.4)
    right, wrong = (compare_pairs(real, np.stack([rough, y], -1)) for y in (pressure, np.roll(pressure, 1, axis=0)))
    for numbers in (right, wrong):
        assert numbers["true pairs"] < 1e-3
        assert numbers["true pressures of other coefficients"] > 0.2
    assert right["samples"] == pytest.approx(right["true pairs"], abs=1e-4)
    assert wrong["samples"] == pytest.approx(wrong["true pressures of other coefficients"], abs=1e-4)


def test_files_are_compared(pairs, tmp_path, monkeypatch, capsys):
    """Of samples that are the true pairs."""
    x, y = pairs
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "samples.npz", samples=np.stack(pairs, axis=-1))
    files = ["--samples", str(tmp_path / "samples.npz"), "--data", str(tmp_path / "data.npz")]
    monkeypatch.setattr(sys, "argv", ["darcy_equation.py", *files])
    EXAMPLE["main"]()
    assert "samples: 0.0%\ntrue pairs: 0.0%\ntrue pressures of other" in capsys.readouterr().out
