"""Held-out log-likelihood of a digits run at several numbers of proposals, beside probabilistic PCA in closed form.

python benchmarks/held_out.py --workdir runs/digits
"""

import argparse

import jax
import numpy as np
from measure import emit
from sklearn.decomposition import PCA

import kaem_jax as kaem
from kaem_jax.data import load_dataset
from kaem_jax.evaluate.held_out import held_out_log_likelihood


def main() -> None:
    """Prints one JSON line for each number of proposals and of components."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    run = kaem.load(parser.parse_args().workdir)
    data = load_dataset(run.config.data)
    for num_samples in (1_000, 10_000, 100_000):
        values = held_out_log_likelihood(
            jax.random.key(7), run.model, run.params, data.test, num_samples=num_samples, chunk_size=num_samples // 20
        )
        result = {name: float(value) for name, value in values.items()}
        emit("held_out", {"model": "kaem", "step": run.step, "num_samples": num_samples}, result)
    splits = (data.train[np.arange(len(data.train))], data.test)
    train, test = (split.reshape(len(split), -1).astype(np.float64) for split in splits)
    for components in sorted({5, 9, 11, 21, run.config.prior.outer}):
        score = PCA(components).fit(train).score(test)  # isotropic noise by maximum likelihood: probabilistic PCA
        emit("held_out", {"model": "pca", "components": components}, {"log_likelihood": score})


if __name__ == "__main__":
    main()
