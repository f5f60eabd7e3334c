"""Whether pairs of coefficient and pressure satisfy Darcy's equation, by a solver of the equation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# Spacings from the outer nodes to the boundary: the grid of the data begins on it, and ends one spacing before it.
_MARGINS = (0.01, 1.0)
_CONTRASTS = (1.0, 1e3)  # of the two coefficients, where the fit looks


@dataclasses.dataclass(frozen=True)
class DarcyEquation:
    """-div(a grad u) = 1 with u = 0 on the boundary of a square, and y = scale u + offset: pairs of Darcy flow sets.

    The coefficient a is 1 or `contrast`. Files of such sets hold 0 and 1 for a, and a scaled pressure, so `fit`
    estimates the three numbers.

    A residual by finite differences does not work: on 32 x 32 nodes, with jumps of a, even true pairs have a residual
    larger than the right-hand side.
    """

    contrast: float
    scale: float
    offset: float

    @classmethod
    def fit(cls, is_high: np.ndarray, pressure: np.ndarray) -> "DarcyEquation":
        """The numbers that fit pressures y [N, H, W] best; `is_high` says where the coefficient is the larger one."""
        from scipy import optimize  # takes a fifth of a second to import: only where it is used

        def affine(log_contrast: float) -> tuple[np.ndarray, float]:
            solution = _solve(is_high, np.exp(log_contrast)).ravel()
            columns = np.stack([solution, np.ones_like(solution)], axis=1)
            found, *_ = np.linalg.lstsq(columns, pressure.ravel(), rcond=None)
            return found, float(np.sum((columns @ found - pressure.ravel()) ** 2))

        low, high = np.log(_CONTRASTS)
        best = optimize.minimize_scalar(lambda c: affine(c)[1], bounds=(low, high), method="bounded")
        (scale, offset), _ = affine(best.x)
        return cls(float(np.exp(best.x)), float(scale), float(offset))

    def pressure(self, is_high: np.ndarray) -> np.ndarray:
        """The solutions y [N, H, W] for coefficients bool [N, H, W]."""
        return self.scale * _solve(is_high, self.contrast) + self.offset

    def relative_l2(self, is_high: np.ndarray, pressure: np.ndarray) -> float:
        """How far pressures [N, H, W] are from the solutions: the mean over pairs of |y - y*| / |y* - offset|."""
        solution = self.pressure(is_high)
        distance, size = (np.sqrt(np.sum(v**2, axis=(1, 2))) for v in (pressure - solution, solution - self.offset))
        return float(np.mean(distance / size))


def compare_pairs(real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    """How far pairs (coefficient, pressure) [N, H, W, 2] are from Darcy's equation, or why this cannot be computed."""
    coefficients = np.unique(real[..., 0])
    if real.shape[-1] != 2 or len(coefficients) != 2:
        return {"reason": "fields are no pairs of a coefficient of two values and a pressure (data.columns)"}
    threshold = np.mean(coefficients)
    (high, pressure), (ours_high, ours) = ((v[..., 0] > threshold, v[..., 1].astype(float)) for v in (real, fake))
    equation = DarcyEquation.fit(high, pressure)
    return {
        "relative_l2": equation.relative_l2(ours_high, ours),
        "relative_l2_held_out": equation.relative_l2(high, pressure),
        "relative_l2_of_other_coefficients": equation.relative_l2(high, np.roll(pressure, 1, axis=0)),
        "contrast": equation.contrast,
    }


def verdict(numbers: Mapping[str, Any]) -> str:
    """Where samples lie between true pairs and pairs that do not belong together."""
    least, most = numbers["relative_l2_held_out"], numbers["relative_l2_of_other_coefficients"]
    if least > most / 2:
        return "held-out pairs are no solutions of this equation themselves"
    share = (numbers["relative_l2"] - least) / (most - least)
    return f"samples are {100 * share:.0f} % of the way from true pairs to pairs that do not belong together"


def _solve(is_high: np.ndarray, contrast: float) -> np.ndarray:
    """Solutions u on the nodes, [N, H, W], for a spacing of 1: finite volumes, harmonic means between coefficients."""
    from scipy import sparse
    from scipy.sparse import linalg

    height, width = is_high.shape[1:]
    node = np.arange(height * width).reshape(height, width)
    start = np.concatenate([node[:-1].ravel(), node[:, :-1].ravel()])
    end = np.concatenate([node[1:].ravel(), node[:, 1:].ravel()])
    solutions = []
    for a in np.where(is_high, contrast, 1.0):
        weight = 2 * a.ravel()[start] * a.ravel()[end] / (a.ravel()[start] + a.ravel()[end])
        to_boundary = np.zeros_like(a)
        for side in (0, 1):
            np.moveaxis(to_boundary, side, 0)[[0, -1]] += np.moveaxis(a, side, 0)[[0, -1]] / np.array(_MARGINS)[:, None]
        diagonal = np.bincount(start, weight, a.size) + np.bincount(end, weight, a.size) + to_boundary.ravel()
        rows, columns = np.concatenate([start, end, node.ravel()]), np.concatenate([end, start, node.ravel()])
        values = np.concatenate([-weight, -weight, diagonal])
        matrix = sparse.csc_matrix((values, (rows, columns)), shape=(a.size, a.size))
        solutions.append(linalg.spsolve(matrix, np.ones(a.size)).reshape(a.shape))
    return np.stack(solutions)
