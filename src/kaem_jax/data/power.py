"""Yeo and Johnson's powers (Biometrika, 2000), which make skewed columns of a table more symmetric.

`scipy.stats.yeojohnson` raises values: ((1 + x)^power - 1) / power for x >= 0, and below
-((1 - x)^(2 - power) - 1) / (2 - power), so that 1 changes nothing. Here is what scipy leaves out.
"""

import numpy as np
from scipy import optimize, special, stats

__all__ = ["fitted_power", "from_power", "log_slope"]

# Between these every power maps the real line onto itself: beyond, a model could make what no value corresponds to, and
# part of its probability would be lost.
_LOW, _HIGH = 0.0, 2.0


def from_power(y: np.ndarray, power: float) -> np.ndarray:
    """The inverse of `scipy.stats.yeojohnson`."""
    return np.sign(y) * special.inv_boxcox1p(np.abs(y), np.where(y >= 0, power, 2 - power))


def log_slope(x: np.ndarray, power: float) -> np.ndarray:
    """The logarithm of its derivative at x."""
    return (power - 1) * np.sign(x) * np.log1p(np.abs(x))


def fitted_power(x: np.ndarray) -> float:
    """The power from 0 to 2 that makes values x [N] most like draws of a normal distribution, by their likelihood."""

    def cost(power: float) -> float:
        return -float(stats.yeojohnson_llf(power, x))

    found = optimize.minimize_scalar(cost, bounds=(_LOW, _HIGH), method="bounded")
    return round(float(found.x), 2)  # digits in which versions of scipy agree
