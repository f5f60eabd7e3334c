"""Held-out log-likelihood of a digits run by several estimators, beside probabilistic PCA in closed form.

python benchmarks/held_out.py --workdir runs/digits
"""

import argparse

import jax
import numpy as np
from measure import emit
from sklearn.decomposition import PCA

import kaem_jax as kaem
from kaem_jax.config import EvaluationConfig
from kaem_jax.data import load_dataset, to_unit_interval
from kaem_jax.metrics.held_out import effort, held_out_log_likelihood


def main() -> None:
    """Prints one JSON line for each estimator and number of components."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    run = kaem.load(parser.parse_args().workdir)
    data = load_dataset(run.config.data)
    x = to_unit_interval(jax.device_put(data.test))
    settings = [EvaluationConfig(final_num_samples=n, chunk_size=n // 20) for n in (1_000, 10_000, 100_000)] + [
        EvaluationConfig(method="ais", final_num_temperatures=n, num_chains=8) for n in (100, 1_000)
    ]
    for each in settings:
        values = held_out_log_likelihood(jax.random.key(7), run.model, run.params, x, each, final=True)
        result = {name: float(value) for name, value in values.items()}
        name, number = effort(each, final=True)
        emit("held_out", {"model": "kaem", "step": run.step, "method": each.method, name: number}, result)
    splits = (data.train[np.arange(len(data.train))], data.test)
    train, test = (split.reshape(len(split), -1).astype(np.float64) for split in splits)
    for components in sorted({5, 9, 11, 21, run.config.prior.outer}):
        score = PCA(components).fit(train).score(test)  # isotropic noise by maximum likelihood: probabilistic PCA
        emit("held_out", {"model": "pca", "components": components}, {"log_likelihood": score})


if __name__ == "__main__":
    main()
