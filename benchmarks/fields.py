"""Probabilistic principal components on fields, the baseline of experiments/darcy.py, and Darcy's equation; JSON lines.

python benchmarks/fields.py --path darcy_train_16.npz --components 16 32 64 [--transposes] [--coefficient x]

With the name of the coefficient: how far the true pressures are from the solutions of the equation, fitted on training
pairs, and how far those of other coefficients are.
"""

import argparse
import dataclasses
import json

import numpy as np
from sklearn.decomposition import PCA

from kaem_jax.data import load_dataset
from kaem_jax.evaluation.metrics.darcy import DarcyEquation
from kaem_jax.data.settings import DataSettings


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Probabilistic PCA on fields.")
    parser.add_argument("--path", required=True)
    parser.add_argument("--array", default="y")
    parser.add_argument("--coefficient")
    parser.add_argument("--transposes", action="store_true", help="fit to the transposed fields too")
    parser.add_argument("--components", nargs="+", type=int, default=(16, 32, 64))
    given = parser.parse_args()
    dataset = load_dataset(DataSettings(name="field", path=given.path, columns=(given.array,)))
    train, test = (np.asarray(part).reshape(len(part), -1) for part in (dataset.train, dataset.held_out))
    fitted = train
    if given.transposes:
        fitted = np.concatenate([train, np.asarray(dataset.train).swapaxes(1, 2).reshape(train.shape)])
    for count in given.components:
        model = PCA(count).fit(fitted)
        again = model.inverse_transform(model.transform(test)).reshape(dataset.held_out.shape)
        ours, real = (dataset.form.decode(values).reshape(len(test), -1) for values in (again, dataset.held_out))
        error = np.mean(np.linalg.norm(ours - real, axis=1) / np.linalg.norm(real, axis=1))
        print(json.dumps({"components": count, "nats": float(model.score(test)), "relative_l2": float(error)}))
    if given.coefficient:
        dataset = load_dataset(DataSettings(name="field", path=given.path, columns=(given.coefficient, given.array)))
        train, test = (dataset.form.decode(np.asarray(part)) for part in (dataset.train, dataset.held_out))
        equation = DarcyEquation.fit(train[..., 0] > 0.5, train[..., 1])
        high, pressure = test[..., 0] > 0.5, test[..., 1]
        found = {"relative_l2": equation.relative_l2(high, pressure)}
        found["relative_l2_of_other_coefficients"] = equation.relative_l2(high, np.roll(pressure, 1, axis=0))
        print(json.dumps(dataclasses.asdict(equation) | found))


if __name__ == "__main__":
    main()
