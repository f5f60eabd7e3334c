"""Held-out log-likelihood of a digits run by several estimators, and of probabilistic PCA in closed form; JSON lines.

    python benchmarks/held_out.py --workdir runs/digits [--keys 20]

With more than one key, only importance sampling from Laplace approximations is repeated: one line tells its spread.
"""

import pathlib
from argparse import Namespace
from typing import Any

import jax
import numpy as np
from lib.measure import emit, script
from sklearn.decomposition import PCA

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset
from kaem_jax.app.evaluation.evaluators import log_likelihood
from kaem_jax.inference.evidence import AIS, Estimator, ImportanceEstimator
from kaem_jax.inference.proposals import Proposal
from kaem_jax.training.batch import to_unit_interval

CASES: list[tuple[Estimator, Proposal]] = [
    (ImportanceEstimator(num_samples=1000), kaem.Laplace()),
    (AIS(num_chains=40, num_temperatures=20), kaem.Laplace()),
    *((ImportanceEstimator(num_samples=n, chunk_size=n // 20), kaem.PriorProposal()) for n in (1000, 10_000, 100_000)),
    *((AIS(num_chains=8, num_temperatures=n), kaem.PriorProposal()) for n in (100, 1000)),
]


def spread(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How much estimates by several keys differ, and by how much they say they do."""
    nats, quoted = (np.array([row[name] for row in rows]) for name in ("nats", "standard_error"))
    return {
        "mean": float(nats.mean()),
        "standard_deviation": float(nats.std(ddof=1)),
        "quoted_error": float(quoted.mean()),
        "rms_z": float(np.sqrt(np.sum(((nats - nats.mean()) / quoted) ** 2) / (len(rows) - 1))),
        "median_ess": float(np.median([row["ess"] for row in rows])),
        "num_bounds": float(np.mean([row["num_bounds"] for row in rows])),
    }


@script(__doc__, workdir=pathlib.Path, keys=1)
def main(given: Namespace) -> None:
    """Prints one line for each estimator and number of components, or one for the spread over keys."""
    run = kaem.load_run(given.workdir)
    data = load_dataset(run.config.data)
    x = to_unit_interval(jax.device_put(data.held_out))

    def evaluate(key: int, estimator: Estimator, proposal: Proposal) -> dict[str, Any]:
        return log_likelihood.evaluate(jax.random.key(key), run, x, estimator, proposal)

    if given.keys > 1:
        rows = [evaluate(key, *CASES[0]) for key in range(given.keys)]
        emit("held_out_keys", {"step": run.step, "keys": given.keys}, spread(rows))
        return
    for estimator, proposal in CASES:
        emit("held_out", {"step": run.step, "proposal": type(proposal).__name__}, evaluate(7, estimator, proposal))
    splits = (data.train[np.arange(len(data.train))], data.held_out)
    train, test = (split.reshape(len(split), -1).astype(np.float64) for split in splits)
    for components in sorted({5, 9, 11, 21, run.config.prior.num_features}):
        score = PCA(components).fit(train).score(test)  # isotropic noise by maximum likelihood: probabilistic PCA
        emit("held_out", {"model": "pca", "components": components}, {"log_likelihood": float(score)})
