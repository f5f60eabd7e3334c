"""What each latent learned, in numbers and formulas that a person can read."""

import dataclasses
from typing import Any

import numpy as np

from kaem_jax.evaluation.metrics.closed_form import fit_closed_form
from kaem_jax.evaluation.metrics.modes import find_modes

__all__ = ["describe_latents"]

_MAX_FORMULAS = 50


def describe_latents(
    z: np.ndarray, density: np.ndarray, base: np.ndarray, names: list[str], explained: np.ndarray
) -> list[dict[str, Any]]:
    """One entry for each univariate density, in the order given: as a rule, most informative first.

    Args:
      z, density, base: [N, L] curves, as `density_curves` returns them.
      names: L labels, as `density_curves` returns them.
      explained: [L] share of the output's variance that moves with each latent.

    Returns:
      `name`, `explained_variance`, `mean`, `standard_deviation`, `distance_from_base` (total variation), `modes`
      (location, height, mass) and, for the first 50, `closed_form`: the log-density as an `expression` that
      `sympy.sympify` reads, its `r_squared`, `total_variation` from the density and `complexity` (nodes of its tree).
    """
    entries = []
    for i in range(len(names)):
        x, p = z[:, i], density[:, i]
        share = p / p.sum()
        mean = float(share @ x)
        entry: dict[str, Any] = {
            "name": names[i],
            "explained_variance": float(explained[i]),
            "mean": mean,
            "standard_deviation": float(np.sqrt(share @ (x - mean) ** 2)),
            "distance_from_base": _total_variation(x, p, base[:, i]),
            "modes": [dataclasses.asdict(mode) for mode in find_modes(x, p)],
        }
        if i < _MAX_FORMULAS:
            form = fit_closed_form(x, p)
            entry["closed_form"] = {
                "expression": str(form.to_sympy()),
                "r_squared": form.r_squared,
                "total_variation": form.total_variation,
                "complexity": form.complexity(),
            }
        entries.append(entry)
    return entries


def _total_variation(z: np.ndarray, density: np.ndarray, base: np.ndarray) -> float:
    """Total variation between the density and its base, in 0..1; the base's mass beyond the curve counts."""
    beyond = max(1 - float(np.trapezoid(base, z)), 0.0)  # the rule may exceed 1 a little
    return float(0.5 * (np.trapezoid(np.abs(density - base), z) + beyond))
