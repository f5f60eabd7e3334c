"""Evaluates a trained run: python -m kaem_jax.evaluate --workdir RUN [--metrics fid kid ...].

Writes evaluation.json into the run's folder: every number with what it takes to repeat it.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import ConfigError
from kaem_jax.data import DataError, load_dataset, to_unit_interval
from kaem_jax.evaluate import METRICS, evaluate_run
from kaem_jax.gallery import draw_all
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
    draw_all(folder, jax.random.key(given.seed), run, held_out)
    repeat = {"step": run.step, **vars(given), "held_out": settings.held_out}
    written = {"metrics": results, "settings": repeat, **environment()}
    folder.evaluation.write_text(json.dumps(written, indent=2) + "\n")
    for line in _lines(results):
        print(line)
    print(f"everything is in {folder.evaluation}", file=sys.stderr)
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


def _lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """What a person wants to see of it."""
    lines = []
    for name, values in results.items():
        if "reason" in values:
            lines.append(f"{name:18s} left out: {values['reason']}")
            continue
        shown = {k: v for k, v in values.items() if isinstance(v, float) and k != "seconds"}
        if name == "active_latents":
            shown = {"count": values["count"], "of": values["of"]}
        lines.append(f"{name:18s} " + "  ".join(f"{k} {v:.5g}" for k, v in shown.items()))
    if named := [values["features"] for values in results.values() if "features" in values]:
        lines.append(f"{'features':18s} {named[0]}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
