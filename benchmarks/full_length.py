"""What a finished run on images reaches, evaluated as in quality.py: one JSON line.

    kaem train --config mnist --workdir RUN
    python benchmarks/full_length.py --run RUN --out FOLDER [--fit vae_then_100_gaussians]

FOLDER is that of quality.py, whose classifier is used. With --fit the prior of that model of quality.py is fitted to
the finished run first.
"""

import dataclasses
import pathlib
from argparse import Namespace

from lib.image_evaluation import NUM_IMAGES, classifier, evaluate, refitted
from lib.measure import emit, script
from lib.models import configure

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset


@script(__doc__, run=pathlib.Path, out=pathlib.Path, fit="")
def main(given: Namespace) -> None:
    """Prints the line."""
    run = kaem.load_run(given.run)
    data = dataclasses.replace(run.config.data, num_held_out=NUM_IMAGES)
    dataset = load_dataset(data)
    evaluation = configure(data.name.removesuffix("_cropped"), "vae", data.dir, [1]).evaluation
    evaluation = dataclasses.replace(evaluation, every_steps=run.config.evaluation.every_steps)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=evaluation))
    extractor = classifier(given.out, data, dataset)
    if given.fit:
        run = refitted(run, given.fit, dataset, run.config.seed)
    case = {"run": given.run.name, "fit": given.fit, "num_steps": run.step}
    emit("full_length", case, evaluate(run, dataset, extractor)[1])
