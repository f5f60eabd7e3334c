"""What a finished run on images reaches by the judges of quality.py: one JSON line.

    kaem train --config mnist --workdir RUN
    python benchmarks/full_length.py --run RUN --out FOLDER [--fit vae_then_100_gaussians]

FOLDER is that of quality.py, whose classifier is used. With --fit the prior of that model of quality.py is fitted to
the finished run first.
"""

import dataclasses
import pathlib

from measure import emit, make_parser
from models import configure
from quality import NUM_IMAGES, PROBE_STEPS, evaluated, refitted

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset
from kaem_jax.app.evaluation.features import make_extractor


def main() -> None:
    """Prints the line."""
    given = make_parser(__doc__, run=pathlib.Path, out=pathlib.Path, fit="").parse_args()
    run = kaem.load_run(given.run)
    data = dataclasses.replace(run.config.data, num_held_out=NUM_IMAGES)
    name, dataset = data.name.removesuffix("_cropped"), load_dataset(data)
    judge = configure(name, "vae", data.dir, [PROBE_STEPS]).evaluation
    judge = dataclasses.replace(judge, every_steps=run.config.evaluation.every_steps)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=judge))
    classifier = given.out / f"classifier_{name}_{data.held_out}.npz"
    extractor = make_extractor("classifier", classifier, data.name, dataset)
    if given.fit:
        run = refitted(run, given.fit, dataset, run.config.seed)
    case = {"run": given.run.name, "fit": given.fit, "num_steps": run.step}
    emit("full_length", case, evaluated(run, dataset, extractor)[1])


if __name__ == "__main__":
    main()
