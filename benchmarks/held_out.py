"""Held-out log-likelihood of a digits run by several estimators, compared with probabilistic PCA in closed form.

python benchmarks/held_out.py --workdir runs/digits [--keys 20 [--modes 8] [--draws 16000]]

With more than one key, only importance sampling from Laplace approximations is repeated, with starts from so many prior
draws; one line tells its spread and the seconds of a key after the first, which compiles.
"""

import argparse
import time

import jax
import numpy as np
from measure import emit
from sklearn.decomposition import PCA

from kaem_jax.data import load_dataset, to_unit_interval
from kaem_jax.evaluation.metrics.held_out import held_out_log_likelihood
from kaem_jax.inference.evidence import make_estimator
from kaem_jax.inference.proposals import Laplace
from kaem_jax.runs.run import load_run


def main() -> None:
    """Prints one JSON line for each estimator and number of components."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--keys", type=int, default=1)
    defaults = Laplace()
    parser.add_argument("--modes", type=int, default=defaults.num_modes)
    parser.add_argument("--draws", type=int, default=defaults.num_draws)
    given = parser.parse_args()
    run = load_run(given.workdir)
    data = load_dataset(run.config.data)
    x = to_unit_interval(jax.device_put(data.held_out))
    laplace = Laplace(num_modes=given.modes, num_draws=given.draws)
    estimators = [
        make_estimator("importance", num_samples=1_000, chunk_size=20_000, proposal=laplace),
        make_estimator("ais", num_chains=40, num_temperatures=20, batch_size=120, proposal=laplace),
        *(make_estimator("importance", num_samples=n, chunk_size=n // 20) for n in (1_000, 10_000, 100_000)),
        *(make_estimator("ais", num_temperatures=n, num_chains=8, batch_size=100) for n in (100, 1_000)),
    ]
    if given.keys > 1:
        found, seconds = [], []
        for key in range(given.keys):
            started = time.perf_counter()
            values, _ = held_out_log_likelihood(jax.random.key(key), run.model, run.params, x, estimators[0])
            found.append({name: float(value) for name, value in values.items()})
            seconds.append(time.perf_counter() - started)
        nats = np.array([values["log_likelihood"] for values in found])
        quoted = np.array([values["log_likelihood_standard_error"] for values in found])
        emit(
            "held_out_keys",
            {"step": run.step, "keys": given.keys, "modes": given.modes, "draws": given.draws},
            {
                "mean": nats.mean(),
                "standard_deviation": nats.std(ddof=1),
                "quoted_error": quoted.mean(),
                "rms_z": np.sqrt(np.mean(((nats - nats.mean()) / quoted) ** 2) * given.keys / (given.keys - 1)),
                "smallest": nats.min(),
                "largest": nats.max(),
                "median_ess": np.median([values["ess"] for values in found]),
                "num_bounds": float(np.mean([values["num_bounds"] for values in found])),
                "seconds": float(np.median(seconds[1:])),
            },
        )
        return
    for each in estimators:
        values, effort = held_out_log_likelihood(jax.random.key(7), run.model, run.params, x, each)
        result = {name: float(value) for name, value in values.items()}
        reference = "laplace" if "reference" in dict(each.options) else "prior"
        size = {"model": "kaem", "step": run.step, "method": each.method, "reference": reference, **effort.settings}
        emit("held_out", size, result)
    splits = (data.train[np.arange(len(data.train))], data.held_out)
    train, test = (split.reshape(len(split), -1).astype(np.float64) for split in splits)
    for components in sorted({5, 9, 11, 21, run.config.prior.outer}):
        score = PCA(components).fit(train).score(test)  # isotropic noise by maximum likelihood: probabilistic PCA
        emit("held_out", {"model": "pca", "components": components}, {"log_likelihood": score})


if __name__ == "__main__":
    main()
