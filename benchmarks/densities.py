"""Held-out nats of the density of a table against others, on the same standardised rows; JSON lines.

    python benchmarks/densities.py --folder ADBENCH [--tables 45_wine ...] [--seeds 3] [--rows 5000] [--flow]

The rows are the normal ones of twelve tables of ADBench with few categories; a quarter is held out. Ties are made
densities by uniform noise as wide as the median step of a column, the same for all. The mixture is chosen by BIC, the
kernel's width on a fifth of the training rows. `--flow` adds a masked autoregressive flow with rational-quadratic
splines, with early stopping on a tenth of the training rows (`pip install flowjax`).
"""

import itertools
import pathlib
import warnings
from collections.abc import Callable

import jax
import numpy as np
from lib.adbench import normal_rows
from lib.baselines import best_mixture, spline_flow
from lib.measure import emit, make_parser, timed
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from kaem_jax.tables import TableDensity

TABLES = [
    "12_fault", "19_landsat", "20_letter", "22_magic.gamma", "28_pendigits", "2_annthyroid", "30_satellite", "33_skin",
    "37_Stamps", "39_vertebral", "41_Waveform", "43_WDBC",
]  # fmt: skip


def mixture(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """Full Gaussian mixtures of up to 40 components."""
    counts = [count for count in (1, 2, 4, 8, 16, 25, 40) if count == 1 or count * train.shape[1] * 2 <= len(train)]
    return float(best_mixture(seed, train, counts, reg_covar=1e-4).score(test))


def kernel(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """A Gaussian kernel."""
    few, many = np.split(train, [len(train) // 5])
    width = max(np.geomspace(0.05, 1.5, 15), key=lambda width: KernelDensity(bandwidth=width).fit(many).score(few))
    return float(KernelDensity(bandwidth=width).fit(train).score_samples(test).mean())


def kaem(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """Ours with its defaults."""
    return TableDensity(random_state=seed).fit(train).score(test)


def flow(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """A masked autoregressive flow with splines."""
    import flowjax.train

    with jax.numpy_dtype_promotion("standard"):
        key_flow, key_fit = jax.random.split(jax.random.key(seed))
        start = spline_flow("masked_autoregressive_flow", key_flow, train.shape[1], flow_layers=5)
        fitted, _ = flowjax.train.fit_to_data(
            key_fit, start, np.float32(train), learning_rate=1e-3, max_epochs=200, max_patience=10, show_progress=False
        )
        return float(fitted.log_prob(np.float32(test)).mean())


def main() -> None:
    """Prints one line for each table and seed."""
    given = make_parser(__doc__, folder=pathlib.Path, tables=TABLES, seeds=3, rows=5000, flow=False).parse_args()
    models: list[Callable[[int, np.ndarray, np.ndarray], float]]
    models = [kaem, mixture, kernel, *([flow] if given.flow else [])]
    warnings.simplefilter("ignore", ConvergenceWarning)
    for table, seed in itertools.product(given.tables, range(given.seeds)):
        x, rng = normal_rows(given.folder / f"{table}.npz"), np.random.default_rng(seed)
        rows = StandardScaler().fit_transform(x[rng.permutation(len(x))[: given.rows]])
        rows = rows[:, rows.std(axis=0) > 0]
        step = [np.median(np.diff(np.unique(column))) for column in rows.T]
        rows = rows + step * rng.uniform(-0.5, 0.5, rows.shape)
        test, train = np.split(rows, [len(rows) // 4])
        row: dict[str, float] = {}
        for model in models:
            name = model.__name__
            row[name], row[f"{name}_seconds"] = timed(model, seed, train, test)
        emit("densities", {"table": table, "seed": seed, "shape": train.shape}, row)


if __name__ == "__main__":
    main()
