"""Modes and formulas of densities that are known."""

import numpy as np
import pytest
import sympy
from scipy import stats

from kaem_jax.evaluation.metrics.closed_form import LIBRARY, fit_closed_form
from kaem_jax.evaluation.metrics.description import describe_latents
from kaem_jax.evaluation.metrics.modes import find_modes

Z = np.linspace(-6, 6, 400)
SYMBOL = sympy.Symbol("z", real=True)


def bimodal(z):
    return 0.3 * stats.norm(-1.5, 0.4).pdf(z) + 0.7 * stats.norm(1, 0.6).pdf(z)


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (stats.norm(1, 0.5), -2 * (SYMBOL - 1) ** 2),
        (stats.laplace(0.3, 0.7), -sympy.Abs(SYMBOL - 0.3) / 0.7),
        (stats.cauchy(0, 0.5), -sympy.log(4 * SYMBOL**2 + 1)),
    ],
    ids=["normal", "laplace", "cauchy"],
)
def test_a_formula_of_one_term_is_recovered(density, expected):
    form = fit_closed_form(Z, density.pdf(Z))
    assert len(form.terms) == 1
    assert form.r_squared > 1 - 1e-9
    assert form.total_variation < 2e-5  # five digits of the coefficients
    difference = sympy.lambdify(SYMBOL, form.to_sympy() - expected)(np.linspace(-2, 2, 9))
    assert np.ptp(difference) < 2e-3  # equal up to the constant; coefficients are rounded to four digits
    assert form.complexity() <= 14


@pytest.mark.parametrize(
    ("density", "z"),
    [
        (stats.gumbel_r(0, 0.8).pdf, Z),
        (stats.gumbel_r(100, 0.5).pdf, np.linspace(97, 107, 400)),
        (stats.gumbel_r(3, 0.01).pdf, np.linspace(2.95, 3.15, 400)),
        (stats.norm(100.07134, 0.02).pdf, np.linspace(100, 100.2, 400)),
        (stats.logistic(0, 0.5).pdf, Z),
        (bimodal, Z),
        (stats.beta(2, 5, loc=-2, scale=4).pdf, np.linspace(-1.99, 1.99, 400)),
    ],
    ids=["gumbel", "far", "narrow", "far and narrow", "logistic", "bimodal", "beta"],
)
def test_exported_formulas_are_the_densities(density, z):
    """What sympy reads from the text, exponentiated and normalised, against the density itself."""
    form = fit_closed_form(z, density(z))
    log_density = sympy.lambdify(SYMBOL, sympy.sympify(str(form.to_sympy()), locals={"z": SYMBOL}))(z)
    fitted = np.exp(log_density - log_density.max())
    truth = density(z) / density(z).sum()
    distance = 0.5 * np.sum(np.abs(fitted / fitted.sum() - truth))
    assert distance < 0.01
    assert abs(distance - form.total_variation) < 1e-3  # the formula that is judged is the one that is printed
    assert form.r_squared > 0.99


def test_library_is_what_sympy_makes_of_its_names():
    x = np.linspace(-3, 3, 13)
    for name, function in LIBRARY.items():
        theirs = sympy.lambdify(sympy.Symbol("x"), sympy.sympify(name))(x)
        np.testing.assert_allclose(function(x), theirs, rtol=1e-12, err_msg=name)


def test_modes_of_a_mixture():
    low, high = find_modes(Z, bimodal(Z))
    assert (low.location, high.location) == pytest.approx((-1.5, 1.0), abs=0.05)
    assert (low.mass, high.mass) == pytest.approx((0.3, 0.7), abs=0.01)
    assert high.height == pytest.approx(bimodal(high.location))


def test_modes_at_the_ends_count_and_ripples_do_not():
    z = np.linspace(0, 1, 200)
    assert [round(mode.location, 2) for mode in find_modes(z, 0.2 + (2 * z - 1) ** 2)] == [0, 1]
    assert len(find_modes(z, 1 + 5e-4 * np.cos(16 * np.pi * z))) == 1  # peaks of one height
    assert len(find_modes(Z, stats.norm.pdf(Z) * (1 + 3e-3 * np.sin(40 * Z)))) == 1


def test_description_is_complete():
    curves = np.stack([stats.norm(0, 1).pdf(Z), bimodal(Z)], axis=1)
    reference = np.repeat(stats.norm(0, 1).pdf(Z)[:, None], 2, axis=1)
    second, first = describe_latents(np.stack([Z, Z], 1), curves, reference, ["a", "b"], np.array([0.6, 0.1]))
    assert (first["name"], second["name"]) == ("b", "a")
    assert (first["explained_variance"], second["explained_variance"]) == (0.1, 0.6)
    assert second["distance_from_reference"] == pytest.approx(0, abs=1e-8)
    assert first["mean"] == pytest.approx(0.25, abs=1e-3)
    variance = 0.3 * (0.4**2 + 1.5**2) + 0.7 * (0.6**2 + 1) - 0.25**2
    assert first["standard_deviation"] == pytest.approx(np.sqrt(variance), abs=1e-3)
    assert len(first["modes"]) == 2
    # A narrow density on its own narrow range: the reference's mass beyond it counts.
    narrow = np.linspace(-0.3, 0.3, 400)[:, None]
    curves = stats.norm(0, 0.05).pdf(narrow), stats.norm(0, 1).pdf(narrow)
    (entry,) = describe_latents(narrow, *curves, ["c"], np.array([1.0]))
    assert entry["distance_from_reference"] == pytest.approx(0.888, abs=2e-3)
    assert second["closed_form"]["expression"].startswith("-0.5*z**2")
