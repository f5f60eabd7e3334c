"""Evaluates a trained run: python -m kaem_jax.evaluate --workdir RUN [--metrics fid kid ...].

Writes into the run's folder: evaluation.json, every number with what it takes to repeat it; latents.json, what each
latent learned; all figures; and report.html, which has all of it and needs nothing beside itself.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
from absl import logging

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import ConfigError
from kaem_jax.data import DataError, load_dataset, to_unit_interval
from kaem_jax.evaluate import METRICS, evaluate_run
from kaem_jax.gallery import draw_all
from kaem_jax.report import write_report
from kaem_jax.report.numbers import readable_rows
from kaem_jax.run import Workdir, environment, load

_EXIT_REFUSED = 2


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    logging.set_verbosity(logging.ERROR)  # orbax tells every rename
    given = _arguments(argv)
    folder = Workdir(pathlib.Path(given.workdir))
    try:
        run = load(given.workdir, given.checkpoint)
        settings = run.config.data
        if given.data_dir:
            settings = dataclasses.replace(settings, dir=given.data_dir)
        # Samples are compared with all held-out data, however few of them training was judged on.
        dataset = load_dataset(dataclasses.replace(settings, num_held_out=0))
        results = evaluate_run(
            run,
            dataset,
            tuple(given.metrics),
            features=given.features,
            classifier_file=folder.classifier,
            num_images=given.num_images,
            points=given.points,
            seed=given.seed,
        )
    except (ConfigError, CheckpointError, DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _EXIT_REFUSED
    held_out = to_unit_interval(jnp.asarray(dataset.test[: run.config.evaluation.num_reconstructions]))
    described = draw_all(folder, jax.random.key(given.seed), run, held_out)
    folder.latents.write_text(json.dumps(described, indent=2) + "\n")
    repeat = {"step": run.step, **vars(given), "held_out": settings.held_out}
    written = {"metrics": results, "settings": repeat, **environment()}
    folder.evaluation.write_text(json.dumps(written, indent=2) + "\n")
    for row in readable_rows(results):
        print(
            f"{row.metric:18s} " + "  ".join(f"{name} {value}" for name, value in row.values) + f"  ({row.made_from})"
        )
    print(f"numbers are in {folder.evaluation}, everything for a reader in {write_report(folder)}", file=sys.stderr)
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kaem_jax.evaluate", description="Judges a trained run.")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--metrics", nargs="+", default=list(METRICS), choices=METRICS, metavar="NAME", help=", ".join(METRICS)
    )
    parser.add_argument(
        "--features",
        default="classifier",
        help="classifier (default), inception[:FILE.pth], another classifier.npz, FILE.jaxexport, module:function",
    )
    parser.add_argument("--num_images", type=int, default=5000, help="generated images, and real ones at most")
    parser.add_argument("--points", choices=("random", "sobol"), default="random", help="draws of generated images")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--data_dir", help="where prepared data are, if not where training found them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.num_images < 20:
        parser.error(f"--num_images={given.num_images} must be at least 20")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
