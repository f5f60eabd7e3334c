"""How well tables' outliers are found, against usual detectors: AUC of each table and seed; JSON lines.

    python benchmarks/outliers.py --folder ADBENCH [--tables 45_wine ...] [--seeds 5] [--rows 5000]

Detectors are fitted to half of the normal rows of each table, at most `--rows`, and score the others and all outliers,
at most as many. All get standardised columns, ours the columns as they are. `false_alarms` is the share of normal rows
that our `predict` calls outliers at 5 %.
"""

import itertools
import pathlib

import numpy as np
from lib.adbench import load
from lib.baselines import best_mixture
from lib.measure import emit, make_parser, timed
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from kaem_jax.tables import TableDensity


def baselines(seed: int, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the test rows by other detectors, larger for outliers."""
    scale = StandardScaler().fit(train)
    train, test = scale.transform(train), scale.transform(test)
    principal = PCA(0.9, random_state=seed).fit(train)
    rest = test - principal.inverse_transform(principal.transform(test))
    mixture = best_mixture(seed, train, [n for n in (1, 2, 4, 8) if 10 * n <= len(train)], reg_covar=1e-3)
    distances = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0]
    return {
        "neighbours": distances[:, -1],
        "dte_np": distances.mean(axis=1),  # diffusion time without a network (Livernoche et al., 2024)
        "forest": -IsolationForest(random_state=seed).fit(train).score_samples(test),
        "mixture": -mixture.score_samples(test),
        "pca": np.sum(rest**2, axis=1),
    }


def fit_and_score(seed: int, train: np.ndarray, test: np.ndarray) -> tuple[TableDensity, np.ndarray]:
    """Our model, and its scores, smaller for outliers."""
    model = TableDensity(random_state=seed).fit(train)
    return model, model.decision_function(test)


def main() -> None:
    """Prints one line for each table and seed."""
    given = make_parser(__doc__, folder=pathlib.Path, tables=[""], seeds=5, rows=5000).parse_args()
    files = [file for file in sorted(given.folder.glob("*.npz")) if given.tables == [""] or file.stem in given.tables]
    for file, seed in itertools.product(files, range(given.seeds)):
        (x, y), rng = load(file), np.random.default_rng(seed)
        is_outlier = y == 1
        normal = rng.permutation(np.flatnonzero(~is_outlier))
        half = len(normal) // 2
        train = normal[:half][: given.rows]
        test = rng.permutation(np.concatenate([normal[half:], np.flatnonzero(is_outlier)]))[: given.rows]
        (model, ours), seconds = timed(fit_and_score, seed, x[train], x[test])
        scores = {"kaem": -ours, "log_p": -model.score_samples(x[test])} | baselines(seed, x[train], x[test])
        row: dict[str, float] = {name: 100 * roc_auc_score(is_outlier[test], score) for name, score in scores.items()}
        row |= {"false_alarms": float(np.mean(ours[~is_outlier[test]] < 0)), "seconds": seconds}
        emit(
            "outliers",
            {"table": file.stem, "seed": seed},
            row | {"method": model.method_, "clusters": model.density_.num_clusters},
        )


if __name__ == "__main__":
    main()
