"""Maps of columns to normal scores: exact inverses and derivatives, and densities against the truth."""

import dataclasses

import numpy as np
import pytest
from scipy import integrate, stats

from kaem_jax.settings import to_dict
from kaem_jax.tables.column import Column
from kaem_jax.tables.marginal_map import MarginalMap, fitted_map

SPLINE = MarginalMap((-1.5, -1.0, 0.2, 0.21, 2.0), (-2.0, -0.3, 0.1, 1.4, 1.6))  # flat and steep parts
POINTS = np.union1d(np.linspace(-6, 6, 4000), SPLINE.knots)


def test_a_map_rises_and_has_its_inverse_and_derivative():
    """By central differences off the knots, where the second derivative jumps; the map goes through its knots."""
    z, log_slope = SPLINE.forward(POINTS)
    assert np.all(np.diff(z) > 0)
    np.testing.assert_allclose(SPLINE.inverse(z), POINTS, atol=1e-9)
    np.testing.assert_allclose(SPLINE.forward(np.array(SPLINE.knots))[0], SPLINE.scores, atol=1e-12)
    away = np.min(np.abs(POINTS[:, None] - np.array(SPLINE.knots)), axis=1) > 1e-4
    step = 1e-6
    slope = (SPLINE.forward(POINTS + step)[0] - SPLINE.forward(POINTS - step)[0]) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slope)[away], slope[away], rtol=1e-4)
    for at in SPLINE.knots:  # no jump of the density
        left, right = SPLINE.forward(np.array([at - 1e-10, at + 1e-10]))[1]
        assert left == pytest.approx(right, abs=1e-5)
    far = np.array([-50.0, 80.0])
    np.testing.assert_allclose(SPLINE.inverse(SPLINE.forward(far)[0]), far)


@pytest.mark.parametrize("name", ["box", "two modes", "lognormal"])
def test_maps_find_the_density_of_a_column(name, rng):
    """Against the truth on fresh values, which normal distributions miss by far; the density integrates to one."""
    draw, log_pdf = {
        "box": (lambda n: rng.uniform(-1, 1, n), stats.uniform(-1, 2).logpdf),
        "two modes": (
            lambda n: rng.normal(np.where(rng.random(n) < 0.5, -2, 2), 0.5),
            lambda x: np.logaddexp(stats.norm(-2, 0.5).logpdf(x), stats.norm(2, 0.5).logpdf(x)) - np.log(2),
        ),
        "lognormal": (lambda n: rng.lognormal(size=n), stats.lognorm(1).logpdf),
    }[name]
    x, held_out, fresh = draw(8000), draw(2000), draw(4000)
    found = fitted_map(x, held_out)

    def log_p(values):
        z, log_slope = found.forward(values)
        return stats.norm.logpdf(z) + log_slope

    assert np.mean(log_pdf(fresh) - log_p(fresh)) < 0.04
    assert np.mean(log_p(fresh) - stats.norm(x.mean(), x.std()).logpdf(fresh)) > 0.1
    grid = np.unique(np.concatenate([np.linspace(-30, 30, 60_001), np.linspace(x.min(), x.max(), 60_001)]))
    assert integrate.trapezoid(np.exp(log_p(grid)), grid) == pytest.approx(1, abs=5e-3)
    score = stats.kstest(found.forward(fresh)[0], "norm").pvalue
    assert score > 1e-4


def test_what_is_normal_or_has_few_values_keeps_no_map(rng):
    x = rng.normal(size=(2, 500))
    found = fitted_map(*x)
    assert found is None or len(found.knots) < 12  # what is kept by chance is smooth
    assert fitted_map(rng.choice([-1.0, 1.0], 500), rng.choice([-1.0, 1.0], 100)) is None
    assert fitted_map(rng.exponential(size=25), rng.exponential(size=25)) is None
    tied = fitted_map(np.where(rng.random(2000) < 0.4, 0, rng.exponential(size=2000)), rng.exponential(size=500))
    assert np.diff(tied.knots).min() > 0.9e-3  # a tie is one knot


def test_a_column_with_a_map_leads_back_to_its_numbers(rng):
    """Through bounds, power and map; volumes are those of finite differences, and files keep the map."""
    numbers = np.exp(rng.normal(np.where(rng.random(3000) < 0.5, -1, 2), 0.3))
    column = Column.of_numbers("x", numbers, "power", low=0.0).with_scores(numbers[500:], numbers[:500])
    assert len(column.knots) > 5
    values = column.encode(numbers.tolist())
    assert stats.kstest(values[:, 0], "norm").pvalue > 1e-4
    np.testing.assert_allclose(column.in_units(values[:, 0]), numbers, rtol=1e-4)
    at = np.linspace(-2, 2, 41)
    step = 1e-5
    slope = (column.in_units(at + step) - column.in_units(at - step)) / (2 * step)
    np.testing.assert_allclose(column.log_volume(at[:, None]), np.log(slope), atol=2e-3)
    assert Column(**to_dict(column)) == column
    plain = dataclasses.replace(column, knots=(), scores=())
    assert np.max(np.abs(plain.encode(numbers.tolist()) - values)) > 0.5
