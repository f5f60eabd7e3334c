"""Distributions in the plane with known densities, against which a model can be checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_NUM_ROWS, _SEED = 22_000, 0
_BLOCK = 10_000  # points whose distances to all centres are in memory at once


class Toy(NamedTuple):
    """A distribution in the plane: `sample` maps (rng, n) to [n, 2], `log_prob` [n, 2] to [n] nats."""

    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]


def _around(centres: np.ndarray, sigma: float) -> Toy:
    """A mixture of equal Gaussians around centres [K, 2]; many centres along a curve give a curve with noise."""

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return centres[rng.integers(len(centres), size=n)] + sigma * rng.normal(size=(n, 2))

    def log_prob(x: np.ndarray) -> np.ndarray:
        from scipy import special
        from scipy.spatial.distance import cdist

        blocks = [cdist(x[first : first + _BLOCK], centres, "sqeuclidean") for first in range(0, len(x), _BLOCK)]
        terms = [special.logsumexp(-0.5 * block / sigma**2, axis=1) for block in blocks]
        return np.concatenate(terms) - np.log(2 * np.pi * sigma**2 * len(centres))

    return Toy(sample, log_prob)


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _checkerboard() -> Toy:
    """Uniform on eight of sixteen squares of side 1.5."""

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        row = rng.integers(4, size=n)
        column = 2 * rng.integers(2, size=n) + row % 2
        return 1.5 * (np.stack([column, row], axis=1) + rng.random((n, 2)) - 2)

    def log_prob(x: np.ndarray) -> np.ndarray:
        cell = np.floor(x / 1.5 + 2)
        inside = np.all((cell >= 0) & (cell < 4), axis=1) & (cell.sum(axis=1) % 2 == 0)
        return np.where(inside, -np.log(8 * 1.5**2), -np.inf)

    return Toy(sample, log_prob)


_ARC = _circle((np.arange(400) + 0.5) * np.pi / 400)
_RING = _circle(np.arange(600) * 2 * np.pi / 600)
TOYS = {
    "eight_gaussians": _around(2.5 * _circle(np.arange(8) * np.pi / 4), 0.25),
    "moons": _around(1.8 * np.concatenate([_ARC - [0.5, 0.25], [0.5, 0.25] - _ARC]), 0.15),
    "rings": _around(np.concatenate([radius * _RING for radius in (0.8, 1.8, 2.8)]), 0.12),
    "checkerboard": _checkerboard(),
}


def toy_table(name: str) -> dict[str, list[Any]]:
    """The columns x and y of 22,000 fixed draws."""
    drawn = TOYS[name].sample(np.random.default_rng(_SEED), _NUM_ROWS)
    return {"x": drawn[:, 0].tolist(), "y": drawn[:, 1].tolist()}
