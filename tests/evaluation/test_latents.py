"""Modes and descriptions of densities that are known."""

import numpy as np
import pytest
from scipy import stats

from kaem_jax.evaluation.latents import Learned, describe_latents, find_modes

Z = np.linspace(-6, 6, 400)


def bimodal(z):
    return 0.3 * stats.norm(-1.5, 0.4).pdf(z) + 0.7 * stats.norm(1, 0.6).pdf(z)


def test_modes_of_a_mixture():
    low, high = find_modes(Z, bimodal(Z))
    assert (low["location"], high["location"]) == pytest.approx((-1.5, 1.0), abs=0.05)
    assert (low["mass"], high["mass"]) == pytest.approx((0.3, 0.7), abs=0.01)
    assert high["height"] == pytest.approx(bimodal(high["location"]))


def test_modes_at_the_ends_count_and_ripples_do_not():
    z = np.linspace(0, 1, 200)
    assert [round(mode["location"], 2) for mode in find_modes(z, 0.2 + (2 * z - 1) ** 2)] == [0, 1]
    assert len(find_modes(z, 1 + 5e-4 * np.cos(16 * np.pi * z))) == 1  # peaks of one height
    assert len(find_modes(Z, stats.norm.pdf(Z) * (1 + 3e-3 * np.sin(40 * Z)))) == 1
    (flat,) = find_modes(z, np.ones(200))
    assert flat["location"] == pytest.approx(0.5, abs=0.01)


def test_a_description_has_the_moments_and_the_distance_from_the_base():
    normal = stats.norm(0, 1).pdf(Z)
    curves = np.stack([normal, bimodal(Z)], axis=1), np.stack([normal, normal], axis=1)
    found = describe_latents(Learned(np.stack([Z, Z], 1), *curves, ["a", "b"], np.array([0.6, 0.1]), np.arange(2)))
    second, first = found
    assert [(entry["name"], entry["explained_variance"]) for entry in found] == [("a", 0.6), ("b", 0.1)]
    assert second["distance_from_base"] == pytest.approx(0, abs=1e-8)
    assert first["mean"] == pytest.approx(0.25, abs=1e-3)
    variance = 0.3 * (0.4**2 + 1.5**2) + 0.7 * (0.6**2 + 1) - 0.25**2
    assert first["standard_deviation"] == pytest.approx(np.sqrt(variance), abs=1e-3)
    assert len(first["modes"]) == 2
    # A narrow density on its own narrow range: the base's mass beyond it counts.
    narrow = np.linspace(-0.3, 0.3, 400)[:, None]
    curves = stats.norm(0, 0.05).pdf(narrow), stats.norm(0, 1).pdf(narrow)
    (entry,) = describe_latents(Learned(narrow, *curves, ["c"], np.array([1.0]), np.arange(1)))
    assert entry["distance_from_base"] == pytest.approx(0.888, abs=2e-3)
