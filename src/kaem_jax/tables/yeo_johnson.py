"""Yeo and Johnson's power transform (Biometrika, 2000), which makes skewed columns of a table more symmetric.

A value becomes ((1 + x)^power - 1) / power for x >= 0, and -((1 - x)^(2 - power) - 1) / (2 - power) below; the power 1
changes nothing. SciPy is imported where it is used: its statistics take a third of a second.
"""

import numpy as np


def to_power(x: np.ndarray, power: float) -> np.ndarray:
    """Applies the transform with this power."""
    from scipy.stats import yeojohnson

    return np.asarray(yeojohnson(x, power))


def from_power(y: np.ndarray, power: float) -> np.ndarray:
    """The inverse of `to_power`."""
    from scipy import special

    return np.sign(y) * special.inv_boxcox1p(np.abs(y), np.where(y >= 0, power, 2 - power))


def log_slope(x: np.ndarray, power: float) -> np.ndarray:
    """The logarithm of the derivative of `to_power` at x."""
    return (power - 1) * np.sign(x) * np.log1p(np.abs(x))


def fitted_power(x: np.ndarray) -> float:
    """The power from 0 to 2 under which the values x [N] are most likely draws of a normal distribution.

    Outside [0, 2] the transform has a bounded range, and values of the model beyond it would have no inverse.
    """
    from scipy import optimize, stats

    found = optimize.minimize_scalar(lambda p: -stats.yeojohnson_llf(p, x), bounds=(0, 2), method="bounded")
    return round(float(found.x), 2)  # digits in which versions of scipy agree
