"""`kaem evaluate --workdir RUN [--metrics fid kid ...]`.

Writes into the run's folder: evaluation.json, every number with the settings that reproduce it; latents.json, what each
latent learned; all figures; and report.html, which shows everything and needs no other file.
"""

import argparse
import dataclasses
import os
import sys
import zlib
from collections.abc import Sequence

import jax
import numpy as np

from kaem_jax.build import build_estimator
from kaem_jax.checkpoint import CheckpointError
from kaem_jax.cli.opening import open_data
from kaem_jax.cli.options import (
    add_cache_option,
    add_checkpoint_option,
    add_data_options,
    add_job_options,
    add_seed_option,
    at_least,
    to_path,
)
from kaem_jax.cli.refusals import in_one_sentence
from kaem_jax.compilation_cache import use_compilation_cache
from kaem_jax.config import ConfigError, ParallelConfig
from kaem_jax.continuing import identity_of
from kaem_jax.data import are_pictures, some_rows, to_unit_interval
from kaem_jax.environment import environment
from kaem_jax.evaluators import (
    METRICS,
    ActiveLatents,
    ClassSamples,
    Clusters,
    Distinct,
    Evaluator,
    HeldOutLikelihood,
    LatentUse,
    Mixing,
    Reconstruction,
    SampleComparison,
    ValueComparison,
    prepare_classifier,
    prepare_features,
)
from kaem_jax.evaluators.evaluator import Numbers
from kaem_jax.files import write_json
from kaem_jax.gallery import draw_all
from kaem_jax.keys import evaluation_keys
from kaem_jax.logging import MetricsFile, say
from kaem_jax.parallel import barrier, check_same_on_all_processes, initialize, is_writer, make_mesh, place
from kaem_jax.prior.clustered import ClusteredPrior
from kaem_jax.report import write_report
from kaem_jax.report.numbers import name_features, readable_rows
from kaem_jax.run import load_run
from kaem_jax.workdir import Workdir

__all__ = ["main"]

_NUM_IMAGES = 5000


def main(argv: Sequence[str]) -> int:
    """The command line without the program's name; returns the exit code."""
    given = _arguments(argv)
    use_compilation_cache(given.cache)
    folder = Workdir(given.workdir)

    def command() -> int:
        initialize(given.coordinator_address, given.num_processes, given.process_id)
        results = _evaluate(folder, given)
        if not is_writer():
            return 0
        for row in readable_rows(results):
            values = "  ".join(f"{value.name} {value.text}" for value in row.values)
            print(f"{row.metric:18s} {values}  ({row.made_from})" + (f": {row.verdict}" if row.verdict else ""))
        if features := name_features(results):
            print(f"{'features':18s} {features}")
        print(f"the numbers are in {folder.evaluation}, the report is in {folder.report}", file=sys.stderr)
        return 0

    return in_one_sentence(command)


def _evaluate(folder: Workdir, given: argparse.Namespace) -> Numbers:
    """Checks the request, then computes, draws and writes; all devices of all processes share the work."""
    folder.read_json(folder.evaluation, "step", "metrics")  # refused before anything is computed, if it is damaged
    if folder.root.is_dir() and not os.access(folder.root, os.W_OK):
        raise ConfigError(f"--workdir {folder.root} cannot be written to, and the numbers go there; copy it")
    run = load_run(folder.root, given.checkpoint)
    identity = identity_of(folder)
    metrics = tuple(given.metrics or METRICS)
    # Samples are compared with all held-out data, even if training was judged on few of them. Of the training data,
    # only the examples that are needed are decoded.
    dataset = open_data(run, given, num_held_out=0)
    options = {name: value for name, value in vars(given).items() if name != "process_id"}
    check_same_on_all_processes(
        {
            "the step of the checkpoint": run.step,
            "the run": identity,
            "the held-out data": dataset.held_out_fingerprint(),
            "the options": zlib.crc32(repr(options).encode()),
        }
    )
    extractor = None
    of_images = are_pictures(dataset.form, dataset.data_shape)
    _check_flags_of_images(given, of_images, dataset.data_shape)
    features = given.features or run.config.evaluation.features
    is_named = features != "classifier" or given.features
    if of_images and (is_named or folder.classifier.exists() or dataset.is_labelled):
        extractor = prepare_features(run.config, dataset, metrics, features, folder.classifier)
    if "class_samples" in metrics and isinstance(run.model.prior, ClusteredPrior) and run.model.prior.num_classes:
        prepare_classifier(run.config, dataset, folder.classifier)
    barrier("features")

    mesh = make_mesh(ParallelConfig(), jax.device_count(), 1)
    arrays = jax.device_get((run.params, run.posterior, run.training_posterior))  # every process has read the same
    params, posterior, training_posterior = jax.tree.map(lambda leaf: place(np.asarray(leaf), mesh), arrays)
    run = dataclasses.replace(run, params=params, posterior=posterior, training_posterior=training_posterior)
    keys = evaluation_keys(given.seed)
    rows = some_rows(run.config.data, len(dataset.test), run.config.data.num_held_out)
    held_out, labels = dataset.test[rows], dataset.test_labels
    with jax.set_mesh(mesh):
        x = to_unit_interval(place(held_out, mesh))
        few = x[: run.config.evaluation.num_reconstructions]
        of_pixels = held_out.dtype == np.uint8
        estimator = build_estimator(run.config, run.model, final=True)
        of_data: dict[str, Evaluator] = {
            "log_likelihood": HeldOutLikelihood(keys.likelihood, x, estimator, of_pixels),
            "reconstruction": Reconstruction(keys.reconstruction, few),
            "active_latents": ActiveLatents(keys.activity, few),
            "clusters": Clusters(keys.clusters, x, labels and (lambda i: labels(rows[i]))),
            "mixing": Mixing(keys.mixing, few),
            "latent_use": LatentUse(keys.latent_use, few, estimator),
            "distinct": Distinct(dataset, given.seed),
            "class_samples": ClassSamples(keys.class_samples, folder.classifier),
        }
        comparisons: list[Evaluator] = [
            SampleComparison(dataset, metrics, extractor, given.num_images, given.points, given.seed),
            ValueComparison(dataset, metrics, given.seed),
        ]
        say("comparing samples with held-out data")
        results = {name: numbers for comparison in comparisons for name, numbers in comparison.run(run).items()}
        for name, evaluator in of_data.items():
            if name in metrics:
                say(f"computing {name}")
                results |= evaluator.run(run)
        kind = type(run.form).__name__.lower()  # pixels, field, table or text
        for name in given.metrics or ():
            results.setdefault(
                name, {"reason": f"data of kind {kind} and shape {dataset.data_shape} have no such metric"}
            )
        results = {name: numbers | {"seed": given.seed} for name, numbers in results.items()}
        if identity_of(folder) != identity:
            raise CheckpointError(f"{folder.root} holds another run now; what was found belongs to none of its models")
        # Metrics that this command does not repeat; another evaluation may have written meanwhile.
        results = _found_before(folder, run.step, identity) | results
        results = {name: results[name] for name in METRICS if name in results}
        if is_writer():
            trained = [row["step"] for row in MetricsFile.read(folder.metrics)]
            about = {"step": run.step, "trained_to": max(trained, default=run.step), "run": identity}
            _set_aside(folder, run.step, identity)
            write_json(folder.evaluation, {**about, "metrics": results, **environment()})
        say("drawing figures")
        described = draw_all(folder, keys.figures, run, x)
    if identity_of(folder) != identity:
        raise CheckpointError(f"{folder.root} holds another run now, and some of its figures may be of the one before")
    if is_writer():
        write_json(folder.latents, described)
        write_report(folder)
    return results


def _found_before(folder: Workdir, step: int, identity: int) -> Numbers:
    """What earlier commands found of this checkpoint of this run; versions before did not write of which run."""
    found: Numbers = {}
    for path in (folder.evaluation_of(step), folder.evaluation):
        kept = folder.read_json(path, "step", "metrics")
        if kept and (kept["step"], kept.get("run", identity)) == (step, identity):
            found |= kept["metrics"]
    return found


def _set_aside(folder: Workdir, step: int, identity: int) -> None:
    """Moves the numbers of another checkpoint, or of another run, to a file of their own."""
    kept = folder.read_json(folder.evaluation, "step", "metrics")
    if kept is None or (kept["step"], kept.get("run", identity)) == (step, identity):
        return
    path = folder.evaluation_of(kept["step"])
    write_json(path, kept | {"metrics": _found_before(folder, kept["step"], kept.get("run", identity))})
    say(f"the numbers of step {kept['step']} are in {path} now")


def _check_flags_of_images(given: argparse.Namespace, of_images: bool, shape: Sequence[int]) -> None:
    """Refuses what only distances between images would use."""
    for flag, value, default in (
        ("features", given.features, None),
        ("num_images", given.num_images, _NUM_IMAGES),
        ("points", given.points, "random"),
    ):
        if value != default and not of_images:
            raise ConfigError(f"--{flag} {value}: the run's data of shape {shape} are not images; leave it out")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kaem evaluate", description="Judges a trained run.")
    parser.add_argument("--workdir", type=to_path, required=True, help="folder of the run")
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, metavar="NAME", help=f"{', '.join(METRICS)}; all that suit by default"
    )
    parser.add_argument(
        "--features",
        help="evaluation.features of the run by default: classifier (where there are labels), inception[:FILE.pth], "
        "another run's classifier.npz, FILE.jaxexport, package.module:function",
    )
    parser.add_argument(
        "--num_images",
        type=at_least(20),
        default=_NUM_IMAGES,
        help="number of generated images, and largest number of real ones",
    )
    parser.add_argument("--points", choices=("random", "sobol"), default="random", help="draws of generated images")
    add_checkpoint_option(parser)
    add_data_options(parser)
    add_cache_option(parser)
    add_job_options(parser)
    add_seed_option(parser)
    return parser.parse_args(argv)
