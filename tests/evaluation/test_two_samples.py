"""Distances between samples of vectors, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from kaem_jax.evaluation.evaluators.value_comparison import classifier_two_sample, energy_distance, radial_spectrum


def test_energy_distance_by_hand_and_of_normal_laws(rng):
    assert energy_distance(np.array([[0.0], [2]]), np.array([[1.0], [5]])) == pytest.approx(2 * 2.5 - 2 - 4)
    a, b, again = (rng.normal(shift, 1, size=(2000, 1)) for shift in (0.0, 1.0, 0.0))
    expected = 2 * stats.foldnorm(1 / np.sqrt(2), scale=np.sqrt(2)).mean() - 2 * 2 / np.sqrt(np.pi)
    assert energy_distance(a, b) == pytest.approx(expected, abs=5 * 2 / 2000**0.5)
    assert abs(energy_distance(a, again)) < 0.1 * expected


@pytest.mark.slow
def test_a_classifier_reaches_the_area_that_the_laws_allow(rng):
    """Of normal laws one deviation apart it is 0.76, where the best share of right answers is 0.69."""
    a, b = rng.normal(size=(3000, 1)), rng.normal(1, 1, size=(3500, 1))
    area, error = classifier_two_sample(a, b)
    assert area == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.03)
    assert error < 0.02
    assert classifier_two_sample(a, b + 100)[0] == pytest.approx(1, abs=1e-3)
    assert classifier_two_sample(a, rng.normal(size=(3000, 1)))[0] == pytest.approx(0.5, abs=0.04)


def test_few_rows_that_differ_are_told_apart(rng):
    """Trees with leaves of 20 rows split none of them, and called every sample good."""
    area, _ = classifier_two_sample(rng.normal(size=(12, 1)), 100 + rng.normal(size=(12, 1)))
    assert area > 0.95


def test_the_spectrum_of_waves():
    """A cosine of wave number 3 along one side and amplitude 2 has its mean square, 2, on the ring of 3."""
    field = np.broadcast_to(2 * np.cos(2 * np.pi * 3 * np.arange(16) / 16), (5, 16, 16))
    wave_numbers, power = radial_spectrum(field)
    np.testing.assert_array_equal(wave_numbers, np.arange(1, 9))
    on_ring = np.sum(np.round(np.hypot(*np.meshgrid(*[np.fft.fftfreq(16, 1 / 16)] * 2))) == 3)
    np.testing.assert_allclose(power * on_ring, 2 * (wave_numbers == 3), rtol=1e-6, atol=1e-10)
