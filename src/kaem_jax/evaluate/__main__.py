"""Evaluates a trained run: python -m kaem_jax.evaluate --workdir RUN [--metrics fid kid ...].

Writes into the run's folder: evaluation.json, every number with what it takes to repeat it; latents.json, what each
latent learned; all figures; and report.html, which has all of it and needs nothing beside itself.
"""

import argparse
import dataclasses
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from kaem_jax.checkpoint import CheckpointError
from kaem_jax.config import EXIT_REFUSED, ConfigError, ParallelConfig
from kaem_jax.data import DataError, is_image, load_dataset, to_unit_interval
from kaem_jax.evaluate import METRICS, compare_samples, evaluate_model, evaluation_keys, prepare_features
from kaem_jax.gallery import draw_all
from kaem_jax.parallel import make_mesh, replicated
from kaem_jax.report import write_report
from kaem_jax.report.numbers import name_features, readable_rows
from kaem_jax.run import Workdir, environment, load


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    logging.set_verbosity(logging.ERROR)  # orbax tells every rename
    given = _arguments(argv)
    folder = Workdir(pathlib.Path(given.workdir))
    try:
        results = _evaluate(folder, given)
    except (ConfigError, CheckpointError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    for row in readable_rows(results):
        values = "  ".join(f"{name} {value}" for name, value in row.values)
        print(f"{row.metric:18s} {values}  ({row.made_from})")
    if features := name_features(results):
        print(f"{'features':18s} {features}")
    print(f"numbers are in {folder.evaluation}, everything for a reader in {folder.report}", file=sys.stderr)
    return 0


def _evaluate(folder: Workdir, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Refuses what cannot be had, then computes, draws and writes; all devices of this process share the work."""
    kept = folder.read_json(folder.evaluation)
    run = load(folder.root, given.checkpoint)
    settings, metrics = run.config.data, tuple(given.metrics)
    if given.data_dir:
        settings = dataclasses.replace(settings, dir=given.data_dir)
    # Samples are compared with all held-out data, however few of them training was judged on; of the training data only
    # what is asked for is decoded.
    dataset = load_dataset(dataclasses.replace(settings, num_held_out=0, storage="disk"))
    extractor = None
    if given.features or folder.classifier.exists() or (dataset.is_labelled and is_image(dataset.data_shape)):
        features = given.features or "classifier"
        extractor = prepare_features(run.config, dataset, metrics, features, folder.classifier)

    mesh = make_mesh(ParallelConfig(), jax.device_count(), 1)
    params, adapted = jax.device_put((run.params, run.adapted), replicated(mesh))
    run = dataclasses.replace(run, params=params, adapted=adapted)
    with jax.set_mesh(mesh):
        results = compare_samples(
            run, dataset, metrics, extractor, num_images=given.num_images, points=given.points, seed=given.seed
        )
        results |= evaluate_model(run, dataset, metrics, seed=given.seed)
        results = {name: values | {"seed": given.seed} for name, values in results.items()}
        if kept and kept.get("step") == run.step:  # what was not asked for anew
            results = kept["metrics"] | results
        results = {name: results[name] for name in METRICS if name in results}
        folder.write_json(folder.evaluation, {"step": run.step, "metrics": results, **environment()})
        held_out = to_unit_interval(jnp.asarray(dataset.test[: run.config.data.num_held_out or None]))
        folder.write_json(folder.latents, draw_all(folder, evaluation_keys(given.seed)[3], run, held_out))
    write_report(folder)
    return results


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kaem_jax.evaluate", description="Judges a trained run.")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--metrics", nargs="+", default=list(METRICS), choices=METRICS, metavar="NAME", help=", ".join(METRICS)
    )
    parser.add_argument(
        "--features",
        help="classifier (default where there are labels), inception[:FILE.pth], another run's classifier.npz, "
        "FILE.jaxexport, package.module:function",
    )
    parser.add_argument("--num_images", type=int, default=5000, help="generated images, and real ones at most")
    parser.add_argument("--points", choices=("random", "sobol"), default="random", help="draws of generated images")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--data_dir", help="where prepared data are, if not where training found them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    if given.num_images < 20:
        parser.error(f"--num_images={given.num_images} must be at least 20")
    if not 0 <= given.seed < 2**32:
        parser.error(f"--seed={given.seed} must be from 0 to {2**32 - 1}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
