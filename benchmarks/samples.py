"""How well samples of a table pass for its rows, against the mixture that fits best; JSON lines.

    pip install xgboost
    python benchmarks/samples.py --file 22_magic.gamma.npz [--seeds 3]

The labels become a category. Models are fitted to nine rows in ten, and as many samples are compared with them:
`detection` is 1 - |2 AUC - 1| of XGBoost by three-fold cross-validation (1: nothing tells them apart). `shape` is the
mean over columns of 1 - the Kolmogorov-Smirnov distance, or total variation; `trend` is the mean over pairs of 1 - half
the difference of correlations, or of tables of ten bins. `closer` is the share of samples that are closer to a fitted
row than to a row of an equal number of those left out; it exceeds a half if the model overfits.
"""

import itertools
import pathlib

import numpy as np
import pandas as pd
from lib.adbench import load
from lib.baselines import best_mixture
from lib.measure import emit, make_parser, timed
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from kaem_jax.tables import TableDensity

CLASS, NUM_BINS = "class", 10


def by_kaem(seed: int, train: pd.DataFrame) -> pd.DataFrame:
    """Samples, as many as rows."""
    return pd.DataFrame(TableDensity(random_state=seed).fit(train).sample(len(train)))


def by_mixtures(seed: int, train: pd.DataFrame) -> pd.DataFrame:
    """The same of full Gaussian mixtures, one for each class, of sizes by BIC."""
    parts = []
    for label, rows in train.groupby(CLASS):
        values = rows.drop(columns=CLASS)
        scale = values.std()
        drawn = best_mixture(seed, values / scale, (1, 2, 4, 8, 16, 32)).sample(len(rows))[0] * scale.to_numpy()
        parts.append(pd.DataFrame(drawn, columns=values.columns).assign(**{CLASS: label}))
    return pd.concat(parts, ignore_index=True)


def numbers_of(table: pd.DataFrame) -> np.ndarray:
    """All columns as numbers."""
    return table.assign(**{CLASS: (table[CLASS] == "1").astype(float)}).to_numpy(float)


def detection(seed: int, real: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """See the top."""
    import xgboost  # no other benchmark needs it

    x, y = np.concatenate([numbers_of(real), numbers_of(drawn)]), np.repeat([0, 1], [len(real), len(drawn)])
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    p = cross_val_predict(xgboost.XGBClassifier(random_state=seed), x, y, cv=folds, method="predict_proba")[:, 1]
    return 1 - abs(2 * float(roc_auc_score(y, p)) - 1)


def overlap(real: pd.Series | pd.DataFrame, drawn: pd.Series | pd.DataFrame) -> float:
    """1 - the total variation between two distributions of counts."""
    return 1 - real.sub(drawn, fill_value=0).abs().to_numpy().sum() / 2


def shape(real: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """See the top."""
    columns = [1 - stats.ks_2samp(real[name], drawn[name]).statistic for name in real if name != CLASS]
    return float(np.mean([*columns, overlap(*(table[CLASS].value_counts(normalize=True) for table in (real, drawn)))]))


def trend(real: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """See the top."""
    names = [name for name in real if name != CLASS]
    ours, theirs = (table[names].corr().to_numpy() for table in (real, drawn))
    pairs = [1 - abs(ours[i, j] - theirs[i, j]) / 2 for i, j in itertools.combinations(range(len(names)), 2)]
    for name in names:
        edges = np.unique(np.quantile(real[name], np.linspace(0, 1, NUM_BINS + 1)))[1:-1]
        bins = (pd.crosstab(np.digitize(table[name], edges), table[CLASS], normalize=True) for table in (real, drawn))
        pairs.append(overlap(*bins))
    return float(np.mean(pairs))


def closer(seed: int, train: pd.DataFrame, test: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """See the top."""
    rows, others, samples = (numbers_of(table) for table in (train.sample(len(test), random_state=seed), test, drawn))
    scale = rows.std(axis=0)
    distances = [NearestNeighbors(n_neighbors=1).fit(x / scale).kneighbors(samples / scale)[0] for x in (rows, others)]
    return float(np.mean(distances[0] < distances[1]))


def main() -> None:
    """Prints one line for each model and seed."""
    given = make_parser(__doc__, file=pathlib.Path, seeds=3).parse_args()
    x, y = load(given.file)
    table = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])]).assign(**{CLASS: y.astype(int).astype(str)})
    for seed in range(given.seeds):
        train = table.sample(frac=0.9, random_state=seed)
        test, train = table.drop(train.index), train.reset_index(drop=True)
        for name, model in {"kaem": by_kaem, "mixtures": by_mixtures}.items():
            drawn, seconds = timed(model, seed, train)
            drawn = drawn[list(train)]
            result = {"seconds": seconds, "detection": detection(seed, train, drawn)}
            result |= {"shape": shape(train, drawn), "trend": trend(train, drawn)}
            result["closer"] = closer(seed, train, test, drawn)
            emit("samples", {"table": given.file.stem, "seed": seed, "model": name}, result)


if __name__ == "__main__":
    main()
