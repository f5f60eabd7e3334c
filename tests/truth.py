"""Independent float64 truth for univariate densities exp(f) pi0 / Z: scipy splines and composite 20-point quadrature.

Written against the formulas of the method, not against the package: nothing is imported from it.
"""

import dataclasses

import numpy as np
from scipy import special, stats
from scipy.interpolate import BSpline

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)

ACTIVATIONS = {
    "none": lambda x: 0 * x,
    "identity": lambda x: x,
    "silu": lambda x: x * special.expit(x),
    "relu": lambda x: np.maximum(x, 0),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def assert_within(estimate, truth, error, k):
    """An estimate is nearer to the truth than `k` of its own errors; what is not a number is no estimate."""
    values = [np.asarray(array, np.float64) for array in (estimate, truth, error)]
    for name, array in zip(("estimate", "truth", "error"), values, strict=True):
        assert np.isfinite(array).all(), f"the {name} is not finite: {array}"
    estimate, truth, error = values
    distance = np.abs(estimate - truth)
    assert np.all(distance < k * error), f"{distance} is not below {k} times {error}"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def wavelet(mother):
    def features(x, grid, scale):
        spacing = (grid[-1] - grid[0]) / (len(grid) - 1)
        centre = (grid[1:] + grid[:-1]) / 2 + spacing * scale[0]
        return mother((x[..., None] - centre) / (spacing * (0.5 + softplus(scale[1]))))

    return features


def bumps(shape):
    def features(x, grid, scale):
        gaps = np.diff(grid)
        spacing = np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
        spacing = np.maximum(spacing, 0.1 * gaps.mean())
        return shape((x[..., None] - grid) / (spacing * (0.5 + softplus(scale))))

    return features


def fourier(x, grid, scale):
    phase = 2 * np.pi * sigmoid(scale) * ((x - grid[0]) / (grid[-1] - grid[0]))[..., None]
    phase = phase * np.arange(1, (len(grid) - 1) // 2 + 1)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)


def chebyshev(x, grid, scale):
    y = 3 * (2 * x - grid[0] - grid[-1]) / (grid[-1] - grid[0])
    return np.cos(np.arange(1, len(grid)) * np.arccos(np.tanh(y) / (1.05 + softplus(scale)))[..., None])


FEATURES = {
    "rbf": bumps(lambda t: np.exp(-0.5 * t**2)),
    "rswaf": bumps(lambda t: 1 - np.tanh(t) ** 2),
    "fourier": fourier,
    "chebyshev": chebyshev,
    "morlet": wavelet(lambda t: (np.cos(5 * t) - np.exp(-12.5)) * np.exp(-0.5 * t**2)),
    "mexican_hat": wavelet(lambda t: (1 - t**2) * np.exp(-0.5 * t**2)),
    "dog": wavelet(lambda t: t * np.exp(-0.5 * t**2)),
    "shannon": wavelet(lambda t: np.sinc(t / 2) * np.cos(1.5 * np.pi * t)),
}


@dataclasses.dataclass
class Density:
    """One component: f = base + expansion, constant outside [a, b]; `pi0` is a frozen scipy distribution."""

    basis: str
    degree: int
    coefficients: np.ndarray
    grid: np.ndarray
    base_weight: float
    activation: str
    pi0: object
    bounded: bool
    scale: np.ndarray | None = None

    def __post_init__(self):
        self.low, self.high = self.grid[0], self.grid[-1]
        kinks = np.clip([-3.0, 0.0, 3.0], self.low, self.high)
        points = np.unique(np.concatenate([self.grid, kinks]))
        cuts = points[:-1, None] + np.diff(points)[:, None] * np.arange(40) / 40
        self.cells = np.append(cuts.ravel(), self.high)
        self.bulk = np.concatenate([[0], np.cumsum(self._integral(self.cells[:-1], self.cells[1:]))])
        self.lower = 0.0 if self.bounded else np.exp(self.energy(self.low)) * self.pi0.cdf(self.low)
        self.upper = 0.0 if self.bounded else np.exp(self.energy(self.high)) * self.pi0.sf(self.high)
        self.mass = self.lower + self.bulk[-1] + self.upper

    def energy(self, z):
        z = np.clip(np.asarray(z, float), self.low, self.high)
        if self.basis == "b_spline":
            k, g = self.degree, self.grid
            before = g[0] - np.arange(k, 0, -1) * (g[1] - g[0])
            after = g[-1] + np.arange(1, k + 1) * (g[-1] - g[-2])
            expansion = BSpline(np.concatenate([before, g, after]), self.coefficients, k)(z)
        else:
            expansion = FEATURES[self.basis](z, self.grid, self.scale) @ self.coefficients
        return expansion + self.base_weight * ACTIVATIONS[self.activation](z)

    def log_pi0(self, z):
        return self.pi0.logpdf(z)

    def _integral(self, low, high):
        low, high = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
        half = (high - low)[:, None] / 2
        z = (low + high)[:, None] / 2 + half * _NODES
        return np.sum(np.exp(self.energy(z) + self.log_pi0(z)) * _WEIGHTS, axis=1) * half[:, 0]

    @property
    def log_normalizer(self):
        return np.log(self.mass)

    def pdf(self, z):
        return np.exp(self.energy(z) + self.log_pi0(z)) / self.mass

    def _cell(self, z):
        inside = np.clip(z, self.low, self.high)
        return inside, np.clip(np.searchsorted(self.cells, inside, side="right") - 1, 0, len(self.cells) - 2)

    def _below(self, z):
        return np.exp(self.energy(self.low)) * self.pi0.cdf(z)

    def _above(self, z):
        return np.exp(self.energy(self.high)) * self.pi0.sf(z)

    def cdf(self, z):
        inside, cell = self._cell(z)
        value = self.lower + self.bulk[cell] + self._integral(self.cells[cell], inside)
        if not self.bounded:
            value = np.where(z < self.low, self._below(z), np.where(z > self.high, self.mass - self._above(z), value))
        return value / self.mass

    def survival(self, z):
        """1 - cdf, without cancellation in the upper tail."""
        inside, cell = self._cell(z)
        value = self.upper + self.bulk[-1] - self.bulk[cell + 1] + self._integral(inside, self.cells[cell + 1])
        if not self.bounded:
            value = np.where(z > self.high, self._above(z), np.where(z < self.low, self.mass - self._below(z), value))
        return value / self.mass


def densities(params, basis, degree, activation, base):
    """[Q][P] `Density` of a prior's parameters."""
    p = {name: np.asarray(value, np.float64) for name, value in params["bank"].items()}
    r = {name: np.asarray(value, np.float64) for name, value in params["base"].items()}
    outer, inner = p["basis_weight"].shape

    def one(q, i):
        at = (q, min(i, p["grid"].shape[1] - 1))
        grid = p["grid"][at]
        frozen = {
            "gaussian": lambda: stats.norm(),
            "learnable_gaussian": lambda: stats.norm(r["mean"][at], 0.01 + softplus(r["raw_deviation"][at])),
            "lognormal": lambda: stats.lognorm(1.0),
            "uniform": lambda: stats.uniform(grid[0], grid[-1] - grid[0]),
        }[base]()
        return Density(
            basis=basis,
            degree=degree,
            coefficients=p["basis_weight"][q, i] * p["coefficients"][q, i],
            grid=grid,
            base_weight=p["base_weight"][q, i] if "base_weight" in p else 0.0,
            activation=activation,
            pi0=frozen,
            bounded=base == "uniform",
            scale=p["scale"][at] if "scale" in p else None,
        )

    return [[one(q, i) for i in range(inner)] for q in range(outer)]
