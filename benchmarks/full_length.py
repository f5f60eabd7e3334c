"""What finished runs on images reach by the judges of quality.py, with their own prior and with fitted ones.

    kaem train --config mnist --workdir RUN
    python benchmarks/full_length.py --runs RUN --out FOLDER [--clusters 10 40 100]

One JSON line for each run and prior: that of the run, then as many full Gaussians as `--clusters` says, fitted to
posterior draws of the training images by `kaem.refit`. FOLDER is that of quality.py, whose classifier is used.
"""

import dataclasses
import pathlib
import time

import jax
import numpy as np
from measure import emit, make_parser
from models import configure
from quality import NUM_IMAGES, PROBE_STEPS, evaluated

import kaem_jax as kaem
from kaem_jax.data import load_dataset
from kaem_jax.evaluation.features import make_extractor
from kaem_jax.runs.run import Run


def refitted(run: Run, x: np.ndarray, num_clusters: int) -> tuple[Run, float]:
    """The run with full Gaussians as its prior, and the seconds that their fit took."""
    prior = kaem.ClusteredPrior(
        num_latents=run.model.prior.event_shape[0], num_clusters=num_clusters, map="full", proportions="learned",
        shape="gaussian",
    )  # fmt: skip
    started = time.perf_counter()
    model, params = kaem.refit(jax.random.key(0), run.model, run.params, x, run.training_posterior, prior)
    return dataclasses.replace(run, model=model, params=params), time.perf_counter() - started


def main() -> None:
    """Prints the lines."""
    given = make_parser(__doc__, runs=[""], out=pathlib.Path, clusters=[10, 40, 100]).parse_args()
    for folder in given.runs:
        run = kaem.load_run(folder)
        data = dataclasses.replace(run.config.data, num_held_out=NUM_IMAGES)
        name, dataset = data.name.removesuffix("_cropped"), load_dataset(data)
        judge = configure(name, "vae", data.dir, PROBE_STEPS).evaluation
        judge = dataclasses.replace(judge, every_steps=run.config.evaluation.every_steps)
        run = dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=judge))
        extractor = make_extractor(
            "classifier", given.out / f"classifier_{name}_{data.held_out}.npz", data.name, dataset
        )
        x = dataset.train[np.arange(len(dataset.train))]
        for num_clusters in (0, *given.clusters):
            one, seconds = refitted(run, x, num_clusters) if num_clusters else (run, 0.0)
            case = {"run": pathlib.Path(folder).name, "fitted": num_clusters, "num_steps": run.step}
            emit("full_length", case, {"fit_seconds": seconds} | evaluated(one, dataset, extractor)[1])


if __name__ == "__main__":
    main()
