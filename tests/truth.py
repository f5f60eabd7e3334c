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
    def features(u, count, scale):
        centre = np.arange(count) + 0.5 + scale[0]
        return mother((u[..., None] - centre) / (0.5 + softplus(scale[1])))

    return features


def bumps(shape):
    return lambda u, count, scale: shape((u[..., None] - np.arange(count + 1)) / (0.5 + softplus(scale)))


def fourier(u, count, scale):
    phase = 2 * np.pi * sigmoid(scale) * (u / count)[..., None] * np.arange(1, count // 2 + 1)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)


def chebyshev(u, count, scale):
    y = 3 * (2 * u / count - 1)
    return np.cos(np.arange(1, count + 1) * np.arccos(np.tanh(y) / (1.05 + softplus(scale)))[..., None])


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
    """One component: f = base + expansion, constant outside the domain; `pi0` is a frozen scipy distribution.

    Positions on the grid of `count` intervals are even in log z where `log_spaced`.
    """

    basis: str
    degree: int
    coefficients: np.ndarray
    domain: tuple[float, float]
    count: int
    base_weight: float
    activation: str
    pi0: object
    bounded: bool
    scale: np.ndarray | None = None
    log_spaced: bool = False

    def __post_init__(self):
        self.low, self.high = self.domain
        spaced = np.geomspace if self.log_spaced else np.linspace
        kinks = np.clip([-3.0, 0.0, 3.0], self.low, self.high)
        points = np.unique(np.concatenate([spaced(*self.domain, self.count + 1), kinks]))
        cuts = points[:-1, None] + np.diff(points)[:, None] * np.arange(40) / 40
        self.cells = np.append(cuts.ravel(), self.high)
        self.bulk = np.concatenate([[0], np.cumsum(self._integral(self.cells[:-1], self.cells[1:]))])
        self.lower = 0.0 if self.bounded else np.exp(self.energy(self.low)) * self.pi0.cdf(self.low)
        self.upper = 0.0 if self.bounded else np.exp(self.energy(self.high)) * self.pi0.sf(self.high)
        self.mass = self.lower + self.bulk[-1] + self.upper

    def energy(self, z):
        z = np.clip(np.asarray(z, float), self.low, self.high)
        x, low, high = np.log([z, self.low + 0 * z, self.high + 0 * z]) if self.log_spaced else (z, *self.domain)
        u = (x - low) / (high - low) * self.count
        if self.basis == "b_spline":
            knots = np.arange(-self.degree, self.count + self.degree + 1)
            expansion = BSpline(knots, self.coefficients, self.degree)(np.clip(u, 0, self.count))
        else:
            expansion = FEATURES[self.basis](u, self.count, self.scale) @ self.coefficients
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


def densities(params, bank, basis, degree, activation, base):
    """[Q][P] `Density` of a prior's parameters; of its `bank` only domain and number of intervals are read."""
    p = {name: np.asarray(value, np.float64) for name, value in params["bank"].items()}
    r = {name: np.asarray(value, np.float64) for name, value in params["base"].items()}
    outer, inner = p["basis_weight"].shape

    def one(q, i):
        of_argument = p.get("scale", r.get("mean", np.zeros((1, inner))))
        at = (q, min(i, of_argument.shape[1] - 1))
        frozen = {
            "gaussian": lambda: stats.norm(),
            "learnable_gaussian": lambda: stats.norm(r["mean"][at], 0.01 + softplus(r["raw_deviation"][at])),
            "lognormal": lambda: stats.lognorm(1.0),
            "uniform": lambda: stats.uniform(bank.domain[0], bank.domain[1] - bank.domain[0]),
        }[base]()
        return Density(
            basis=basis,
            degree=degree,
            coefficients=p["basis_weight"][q, i] * p["coefficients"][q, i],
            domain=bank.domain,
            count=bank.num_intervals,
            base_weight=p["base_weight"][q, i] if "base_weight" in p else 0.0,
            activation=activation,
            pi0=frozen,
            bounded=base == "uniform",
            scale=p["scale"][at] if "scale" in p else None,
            log_spaced=base == "lognormal",
        )

    return [[one(q, i) for i in range(inner)] for q in range(outer)]
