"""How well tables' outliers are found, against usual detectors: AUC of each table and seed; JSON lines.

    python benchmarks/outliers.py --folder ADBENCH [--tables 45_wine ...] [--seeds 5] [--rows 5000]

Of ADBench (Han et al., 2022): each .npz file has X [N, D] and y, 1 for outliers. Detectors are fitted to half of the
normal rows, at most `--rows`, and score the others and all outliers, at most as many. All get standardised columns,
ours the columns as they are. `false_alarms` is the share of normal rows that our `predict` calls outliers at 5 %.
"""

import pathlib
import time

import numpy as np
from measure import emit, make_parser
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from kaem_jax.tables.estimator import KAEM


def rivals(seed: int, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the test rows by other detectors, larger for outliers."""
    scale = StandardScaler().fit(train)
    train, test = scale.transform(train), scale.transform(test)
    principal = PCA(0.9, random_state=seed).fit(train)
    rest = test - principal.inverse_transform(principal.transform(test))
    counts = [count for count in (1, 2, 4, 8) if 10 * count <= len(train)]
    mixtures = [GaussianMixture(count, reg_covar=1e-3, random_state=seed).fit(train) for count in counts]
    best = min(mixtures, key=lambda mixture: mixture.bic(train))
    distances = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0]
    return {
        "neighbours": distances[:, -1],
        "dte_np": distances.mean(axis=1),  # diffusion time without a network (Livernoche et al., 2024)
        "forest": -IsolationForest(random_state=seed).fit(train).score_samples(test),
        "mixture": -best.score_samples(test),
        "pca": np.sum(rest**2, axis=1),
    }


def main() -> None:
    """Prints one line for each table and seed, and the means."""
    given = make_parser(__doc__, folder=pathlib.Path, tables=[""], seeds=5, rows=5000).parse_args()
    rows = []
    for file in sorted(given.folder.glob("*.npz")):
        if given.tables != [""] and file.stem not in given.tables:
            continue
        with np.load(file) as arrays:
            x, is_outlier = arrays["X"].astype(float), arrays["y"].ravel() == 1
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            normal = rng.permutation(np.flatnonzero(~is_outlier))
            half = len(normal) // 2
            train = normal[:half][: given.rows]
            test = rng.permutation(np.concatenate([normal[half:], np.flatnonzero(is_outlier)]))[: given.rows]
            began = time.perf_counter()
            model = KAEM(random_state=seed).fit(x[train])
            ours = model.decision_function(x[test])
            seconds = time.perf_counter() - began
            scores = {"kaem": -ours, "log_p": -model.score_samples(x[test])} | rivals(seed, x[train], x[test])
            row = {name: 100 * float(roc_auc_score(is_outlier[test], score)) for name, score in scores.items()}
            rows.append(row | {"false_alarms": float(np.mean(ours[~is_outlier[test]] < 0)), "seconds": seconds})
            prior = model.density_.prior
            emit("outliers", {"table": file.stem, "seed": seed}, rows[-1] | {"clusters": prior.num_clusters})
    emit("outliers_mean", {"rows": len(rows)}, {name: float(np.mean([row[name] for row in rows])) for name in rows[0]})


if __name__ == "__main__":
    main()
