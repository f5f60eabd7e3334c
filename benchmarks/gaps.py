"""How well gaps of tables are filled, against usual imputers: errors of each table, mechanism and seed; JSON lines.

    pip install miceforest
    python benchmarks/gaps.py --folder ADBENCH [--tables 45_wine ...] [--seeds 2] [--rows 1000]

At most `--rows` normal rows of each table lose a fifth of their cells: in all columns at random, or in two columns of
three with a probability that rises with another column (`at_random`). Every imputer sees these rows alone. Errors are
in standard deviations of a column: root mean squares and means of absolute values, of means and of single draws.
`covered` is the share of cells between the 5 % and 95 % quantiles of our draws.
"""

import itertools
import pathlib
import warnings

import numpy as np
import pandas as pd
from lib.adbench import normal_rows
from lib.measure import emit, make_parser, timed
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from kaem_jax.tables import TableDensity

SHARE, NUM_DRAWS, NUM_SETS = 0.2, 200, 5
MECHANISMS = ["completely_at_random", "at_random"]
TABLES = [
    "2_annthyroid", "4_breastw", "7_Cardiotocography", "12_fault", "15_Hepatitis", "22_magic.gamma", "28_pendigits",
    "32_shuttle", "37_Stamps", "39_vertebral", "43_WDBC", "45_wine",
]  # fmt: skip
Filled = tuple[np.ndarray, np.ndarray | None]  # means [N, D], and draws [S, N, D]


def without(rng: np.random.Generator, x: np.ndarray, mechanism: str) -> np.ndarray:
    """Standardised rows with NaN in a fifth of the cells."""
    share = np.full(x.shape, SHARE)
    if mechanism == "at_random":
        num = max(1, x.shape[1] // 3)
        logit = 1.5 * x[:, rng.integers(num, size=x.shape[1])]
        share = 1 / (1 + np.exp(-logit))
        share[:, :num] = 0
        share *= SHARE * x.size / share.sum()
    is_gap = rng.random(x.shape) < share
    is_gap[is_gap.all(axis=1)] = False
    return np.where(is_gap, np.nan, x)


def kaem(seed: int, x: np.ndarray) -> Filled:
    """The density of the table."""
    model = TableDensity(random_state=seed).fit(x)
    return model.impute(x), np.stack(model.impute(x, num_draws=NUM_DRAWS))


def miceforests(seed: int, x: np.ndarray) -> Filled:
    """Five chained equations by boosted trees with predictive mean matching."""
    import miceforest  # no other benchmark needs it

    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    kernel = miceforest.ImputationKernel(frame, num_datasets=NUM_SETS, random_state=seed)
    kernel.mice(5, verbose=False)
    draws = np.stack([kernel.complete_data(i).to_numpy() for i in range(NUM_SETS)])
    return draws.mean(axis=0), draws


def missforest(seed: int, x: np.ndarray) -> Filled:
    """Chained random forests (Stekhoven and Buehlmann, 2012)."""
    forest = RandomForestRegressor(50, max_features="sqrt", random_state=seed, n_jobs=2)
    return IterativeImputer(forest, max_iter=5, random_state=seed).fit_transform(x), None


def iterative(seed: int, x: np.ndarray) -> Filled:
    """Chained ridge regressions, and five draws."""
    chains = [IterativeImputer(sample_posterior=True, max_iter=10, random_state=seed + i) for i in range(NUM_SETS)]
    draws = np.stack([chain.fit_transform(x) for chain in chains])
    return IterativeImputer(max_iter=20, random_state=seed).fit_transform(x), draws


def neighbours(seed: int, x: np.ndarray) -> Filled:
    """The mean of five neighbours."""
    return KNNImputer().fit_transform(x), None


def errors(found: Filled, x: np.ndarray, is_gap: np.ndarray) -> dict[str, float]:
    """See the top."""
    result: dict[str, float] = {}
    for name, values in zip(("", "draw_"), found, strict=True):
        if values is not None:
            rest = (values - x)[..., is_gap]
            result |= {f"{name}rmse": float(np.sqrt(np.mean(rest**2))), f"{name}mae": float(np.mean(np.abs(rest)))}
    if (draws := found[1]) is not None and len(draws) == NUM_DRAWS:
        low, high = np.quantile(draws[:, is_gap], [0.05, 0.95], axis=0, method="weibull")
        result["covered"] = float(np.mean((low <= x[is_gap]) & (x[is_gap] <= high)))
    return result


def main() -> None:
    """Prints one line for each table, mechanism, seed and imputer, and the means."""
    options = {"folder": pathlib.Path, "tables": TABLES, "mechanisms": MECHANISMS, "seeds": 2, "rows": 1000}
    given = make_parser(__doc__, **options).parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for table, mechanism, seed in itertools.product(given.tables, given.mechanisms, range(given.seeds)):
        rng = np.random.default_rng(seed)
        x = rng.permutation(normal_rows(given.folder / f"{table}.npz"))[: given.rows]
        x = x[:, x.std(axis=0) > 0]
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        left = without(rng, x, mechanism)
        for impute in (kaem, miceforests, missforest, iterative, neighbours):
            found, seconds = timed(impute, seed, left)
            result = errors(found, x, np.isnan(left)) | {"seconds": seconds}
            name = impute.__name__
            emit("gaps", {"table": table, "mechanism": mechanism, "seed": seed, "imputer": name}, result)
            results.setdefault((mechanism, name), []).append(result)
    for (mechanism, name), runs in results.items():
        means = {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}
        emit("gaps_mean", {"mechanism": mechanism, "imputer": name, "runs": len(runs)}, means)


if __name__ == "__main__":
    main()
