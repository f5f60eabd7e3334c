"""Held-out nats of the density of a table against others, on the same standardised rows; JSON lines.

    python benchmarks/densities.py --folder ADBENCH [--tables 45_wine ...] [--seeds 3] [--rows 5000] [--flow]

The rows are the normal ones of twelve tables of ADBench with few categories; a quarter is held out. Ties are made
densities by uniform noise as wide as the median step of a column, the same for all. The mixture is chosen by BIC, the
kernel's width on a fifth of the training rows. `--flow` adds a masked autoregressive flow with rational-quadratic
splines, with early stopping on a tenth of the training rows (`pip install flowjax`).
"""

import pathlib
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np
from measure import emit, make_parser
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from kaem_jax.tables.estimator import KAEM

TABLES = [
    "12_fault", "19_landsat", "20_letter", "22_magic.gamma", "28_pendigits", "2_annthyroid", "30_satellite", "33_skin",
    "37_Stamps", "39_vertebral", "41_Waveform", "43_WDBC",
]  # fmt: skip


def mixture(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """Full Gaussian mixtures of up to 40 components."""
    counts = [count for count in (1, 2, 4, 8, 16, 25, 40) if count == 1 or count * train.shape[1] * 2 <= len(train)]
    fits = [GaussianMixture(count, reg_covar=1e-4, random_state=seed).fit(train) for count in counts]
    return float(min(fits, key=lambda fit: fit.bic(train)).score(test))


def kernel(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """A Gaussian kernel."""
    few, many = np.split(train, [len(train) // 5])
    width = max(np.geomspace(0.05, 1.5, 15), key=lambda width: KernelDensity(bandwidth=width).fit(many).score(few))
    return float(KernelDensity(bandwidth=width).fit(train).score_samples(test).mean())


def kaem(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """Ours with its defaults."""
    return KAEM(random_state=seed).fit(train).score(test)


def flow(seed: int, train: np.ndarray, test: np.ndarray) -> float:
    """A masked autoregressive flow with splines."""
    import flowjax.bijections
    import flowjax.distributions
    import flowjax.flows
    import flowjax.train

    with jax.numpy_dtype_promotion("standard"):
        key_flow, key_fit = jax.random.split(jax.random.key(seed))
        base = flowjax.distributions.Normal(np.zeros(train.shape[1], np.float32))
        spline = flowjax.bijections.RationalQuadraticSpline(knots=8, interval=5)
        start = flowjax.flows.masked_autoregressive_flow(key_flow, base_dist=base, transformer=spline, flow_layers=5)
        fitted, _ = flowjax.train.fit_to_data(
            key_fit, start, np.float32(train), learning_rate=1e-3, max_epochs=200, max_patience=10, show_progress=False
        )
        return float(fitted.log_prob(np.float32(test)).mean())


def main() -> None:
    """Prints one line for each table and seed, and mean ranks (1 is best)."""
    given = make_parser(__doc__, folder=pathlib.Path, tables=TABLES, seeds=3, rows=5000, flow=False).parse_args()
    models: dict[str, Callable[[int, np.ndarray, np.ndarray], float]]
    models = {"kaem": kaem, "mixture": mixture, "kernel": kernel} | ({"flow": flow} if given.flow else {})
    warnings.simplefilter("ignore", ConvergenceWarning)
    ranks = []
    for table in given.tables:
        with np.load(given.folder / f"{table}.npz") as arrays:
            x = arrays["X"][arrays["y"].ravel() == 0].astype(float)
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            rows = StandardScaler().fit_transform(x[rng.permutation(len(x))[: given.rows]])
            rows = rows[:, rows.std(axis=0) > 0]
            step = [np.median(np.diff(np.unique(column))) for column in rows.T]
            rows = rows + step * rng.uniform(-0.5, 0.5, rows.shape)
            test, train = np.split(rows, [len(rows) // 4])
            row: dict[str, float] = {}
            for name, model in models.items():
                began = time.perf_counter()
                row[name] = model(seed, train, test)
                row[f"{name}_seconds"] = time.perf_counter() - began
            ranks.append({name: 1 + sum(row[other] > row[name] for other in models) for name in models})
            emit("densities", {"table": table, "seed": seed, "shape": train.shape}, row)
    emit("densities_ranks", {"rows": len(ranks)}, {name: float(np.mean([r[name] for r in ranks])) for name in models})


if __name__ == "__main__":
    main()
