"""Independent float64 truth for univariate densities exp(f) pi0 / Z: scipy splines and composite 20-point quadrature.

Written against the formulas of the method, not against the package: nothing is imported from it.
"""

import dataclasses

import numpy as np
from scipy import special
from scipy.interpolate import BSpline

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)

ACTIVATIONS = {
    "none": lambda x: 0 * x,
    "silu": lambda x: x * special.expit(x),
    "relu": lambda x: np.maximum(x, 0),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


@dataclasses.dataclass
class Density:
    """One component: f = base + expansion, constant outside [a, b]; reference `gaussian` or `uniform`."""

    basis: str
    degree: int
    coefficients: np.ndarray
    grid: np.ndarray
    base_weight: float
    activation: str
    reference: str
    scale: float = 0.0

    def __post_init__(self):
        self.low, self.high = self.grid[0], self.grid[-1]
        cells = np.linspace(self.low, self.high, 801)
        kinks = np.clip([-3.0, 0.0, 3.0], self.low, self.high)
        self.cells = np.unique(np.concatenate([cells, self.grid, kinks]))
        self.bulk = np.concatenate([[0], np.cumsum(self._integral(self.cells[:-1], self.cells[1:]))])
        tails = self.reference == "gaussian"
        self.lower = np.exp(self.energy(self.low)) * special.ndtr(self.low) if tails else 0.0
        self.upper = np.exp(self.energy(self.high)) * special.ndtr(-self.high) if tails else 0.0
        self.mass = self.lower + self.bulk[-1] + self.upper

    def energy(self, z):
        z = np.clip(z, self.low, self.high)
        if self.basis == "b_spline":
            k, g = self.degree, self.grid
            before = g[0] - np.arange(k, 0, -1) * (g[1] - g[0])
            after = g[-1] + np.arange(1, k + 1) * (g[-1] - g[-2])
            expansion = BSpline(np.concatenate([before, g, after]), self.coefficients, k)(z)
        else:
            spacing = (self.high - self.low) / (len(self.grid) - 1)
            width = spacing * (0.5 + np.log1p(np.exp(self.scale)))
            expansion = np.exp(-0.5 * ((np.asarray(z)[..., None] - self.grid) / width) ** 2) @ self.coefficients
        return expansion + self.base_weight * ACTIVATIONS[self.activation](z)

    def log_reference(self, z):
        if self.reference == "gaussian":
            return -0.5 * np.square(z) - 0.5 * np.log(2 * np.pi)
        return np.where((z >= self.low) & (z <= self.high), -np.log(self.high - self.low), -np.inf)

    def _integral(self, low, high):
        low, high = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
        half = (high - low)[:, None] / 2
        z = (low + high)[:, None] / 2 + half * _NODES
        return np.sum(np.exp(self.energy(z) + self.log_reference(z)) * _WEIGHTS, axis=1) * half[:, 0]

    @property
    def log_normalizer(self):
        return np.log(self.mass)

    def pdf(self, z):
        return np.exp(self.energy(z) + self.log_reference(z)) / self.mass

    def cdf(self, z):
        inside = np.clip(z, self.low, self.high)
        cell = np.clip(np.searchsorted(self.cells, inside, side="right") - 1, 0, len(self.cells) - 2)
        value = self.lower + self.bulk[cell] + self._integral(self.cells[cell], inside)
        if self.reference == "gaussian":
            value = np.where(z < self.low, np.exp(self.energy(self.low)) * special.ndtr(z), value)
            above = np.exp(self.energy(self.high)) * special.ndtr(-np.asarray(z))
            value = np.where(z > self.high, self.mass - above, value)
        return value / self.mass

    def survival(self, z):
        """1 - cdf, without cancellation in the upper tail."""
        inside = np.clip(z, self.low, self.high)
        cell = np.clip(np.searchsorted(self.cells, inside, side="right") - 1, 0, len(self.cells) - 2)
        rest = self.bulk[-1] - self.bulk[cell + 1]
        value = self.upper + rest + self._integral(inside, self.cells[cell + 1])
        if self.reference == "gaussian":
            above = np.exp(self.energy(self.high)) * special.ndtr(-np.asarray(z))
            below = np.exp(self.energy(self.low)) * special.ndtr(z)
            value = np.where(z > self.high, above, np.where(z < self.low, self.mass - below, value))
        return value / self.mass


def densities(params, basis, degree, activation, reference):
    """[Q][P] `Density` of a bank's parameters."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    outer, inner = p["basis_weight"].shape

    def one(q, i):
        grid_index = (q, min(i, p["grid"].shape[1] - 1))
        return Density(
            basis=basis,
            degree=degree,
            coefficients=p["basis_weight"][q, i] * p["coefficients"][q, i],
            grid=p["grid"][grid_index],
            base_weight=p["base_weight"][q, i] if "base_weight" in p else 0.0,
            activation=activation,
            reference="gaussian" if reference == "gaussian" else "uniform",
            scale=p["scale"][grid_index] if "scale" in p else 0.0,
        )

    return [[one(q, i) for i in range(inner)] for q in range(outer)]
