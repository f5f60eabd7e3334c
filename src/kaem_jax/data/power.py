"""Yeo and Johnson's powers, which make skewed columns of a table more symmetric (Biometrika, 2000)."""

import numpy as np
from scipy import optimize, special, stats

__all__ = ["fitted_power", "from_power", "log_slope", "to_power"]

# Between these every power maps the real line onto itself: beyond, a model could make what no value corresponds to, and
# part of its probability would be lost.
_LOW, _HIGH = 0.0, 2.0


def to_power(x: np.ndarray, power: float) -> np.ndarray:
    """((1 + x)^power - 1) / power for x >= 0, and -((1 - x)^(2 - power) - 1) / (2 - power) below; 1 changes nothing."""
    size = np.abs(x)
    return np.where(x >= 0, special.boxcox1p(size, power), -special.boxcox1p(size, 2 - power))


def from_power(y: np.ndarray, power: float) -> np.ndarray:
    """The inverse of `to_power`."""
    size = np.abs(y)
    return np.where(y >= 0, special.inv_boxcox1p(size, power), -special.inv_boxcox1p(size, 2 - power))


def log_slope(x: np.ndarray, power: float) -> np.ndarray:
    """The logarithm of the derivative of `to_power` at x."""
    return (power - 1) * np.sign(x) * np.log1p(np.abs(x))


def fitted_power(x: np.ndarray) -> float:
    """The power from 0 to 2 that makes values x [N] most like draws of a normal distribution, by their likelihood."""

    def cost(power: float) -> float:
        return -float(stats.yeojohnson_llf(power, x))

    found = optimize.minimize_scalar(cost, bounds=(_LOW, _HIGH), method="bounded")
    return round(float(found.x), 2)  # the same on every machine
