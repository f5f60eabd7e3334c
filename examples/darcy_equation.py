"""Whether sampled pairs of coefficient and pressure satisfy Darcy's equation, by a solver of the equation.

    kaem train --config darcy "--config.data.columns=('x','y')" --config.data.path=darcy_train_16.npz --workdir RUN
    kaem sample --workdir RUN --num 100 --out samples.npz
    python examples/darcy_equation.py --samples samples.npz --data darcy_test_16.npz

The data are true pairs: arrays `x` (coefficient, of two values) and `y` (pressure), [N, H, W]. The equation is fitted
to them, and each pressure is compared with the solution for its own coefficient.
"""

import argparse
import dataclasses

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import linalg

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


def _solve(is_high: np.ndarray, contrast: float) -> np.ndarray:
    """Solutions u on the nodes, [N, H, W], for a spacing of 1: finite volumes, harmonic means between coefficients."""
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


def compare_pairs(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """How far pairs (coefficient, pressure) [N, H, W, 2] are from the equation that the real ones satisfy."""
    threshold = np.mean(np.unique(real[..., 0]))
    (high, pressure), (ours_high, ours) = ((v[..., 0] > threshold, v[..., 1].astype(float)) for v in (real, fake))
    equation = DarcyEquation.fit(high, pressure)
    return {
        "samples": equation.relative_l2(ours_high, ours),
        "true pairs": equation.relative_l2(high, pressure),
        "true pressures of other coefficients": equation.relative_l2(high, np.roll(pressure, 1, axis=0)),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", required=True, help="a file that kaem sample wrote")
    parser.add_argument("--data", required=True)
    given = parser.parse_args()
    with np.load(given.samples) as samples, np.load(given.data) as data:
        real, fake = np.stack([data["x"], data["y"]], axis=-1), samples["samples"]
    print("relative distance to the solution:")
    for name, distance in compare_pairs(real, fake).items():
        print(f"{name}: {distance:.1%}")


if __name__ == "__main__":
    main()
