"""Judges a trained run: numbers, figures and the report in its folder."""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax import Array

from kaem_jax.data import Dataset, are_pictures, judged_rows, to_unit_interval
from kaem_jax.devices.mesh import Parallel, make_mesh
from kaem_jax.devices.placement import place
from kaem_jax.devices.processes import barrier, check_same_on_all_processes, is_writer, say
from kaem_jax.errors import ConfigError, RunError
from kaem_jax.evaluation.evaluators import (
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
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.gallery import draw_all
from kaem_jax.evaluation.report import write_report
from kaem_jax.files import write_json
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.uniform import POINTS
from kaem_jax.runs.environment import environment
from kaem_jax.runs.open_data import open_data
from kaem_jax.runs.resume import identity_of
from kaem_jax.runs.run import Run, load_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings.arguments import check_choice, check_integer
from kaem_jax.training.keys import EvaluationKeys, evaluation_keys
from kaem_jax.training.log import MetricsFile

__all__ = ["NUM_IMAGES", "evaluate"]

NUM_IMAGES = 5000


def evaluate(
    workdir: str | pathlib.Path,
    *,
    checkpoint: int | Literal["last", "best"] = "last",
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    num_images: int = NUM_IMAGES,
    points: str = "random",
    seed: int = 0,
    data_path: str | None = None,
    data_dir: str | None = None,
) -> Numbers:
    """Judges the run in a folder, draws its figures and writes its report; all devices of all processes share the work.

    Written are evaluation.json, every number with the settings that reproduce it; latents.json, what each latent
    learned; all figures; and report.html, which shows everything and needs no other file.

    Args:
      workdir: the folder.
      checkpoint: see `kaem_jax.load`.
      metrics: names from `kaem_jax.evaluation.evaluators.METRICS`; by default all that suit the data.
      features: of images, by which samples are compared; `evaluation.features` of the run by default.
      num_images: number of generated images, and largest number of real ones.
      points: draws of generated images, `random` or `sobol`.
      seed: of random draws.
      data_path, data_dir: where the data are, if they are not where training found them.

    Returns:
      For each metric its numbers, or the reason why there are none; with those that earlier calls found of this
      checkpoint and this one did not repeat.

    Raises:
      ValueError: a metric or `points` is unknown, or a number out of range.
      ConfigError: an argument does not suit the run.
      RunError: there is no such run or checkpoint, it is damaged, or another run takes its place meanwhile.
      TransientReadError: it cannot be read for a reason that says nothing of it, such as a file system that is away.
      DataError: the data are missing.
    """
    given = {"metrics": metrics, "features": features, "num_images": num_images, "points": points, "seed": seed}
    folder, wanted = RunFolder(pathlib.Path(workdir)), tuple(metrics or METRICS)
    for name in wanted:
        check_choice("metrics", name, METRICS)
    check_choice("points", points, POINTS)
    check_integer("num_images", num_images, low=20)
    check_integer("seed", seed, low=0)
    folder.read_evaluation()  # refused before anything is computed, if it is damaged
    if folder.root.is_dir() and not os.access(folder.root, os.W_OK):
        raise ConfigError(f"--workdir {folder.root} cannot be written to, and the numbers go there; copy it")
    run = load_run(folder.root, checkpoint)
    identity = identity_of(folder)
    # Samples are compared with all held-out data, even if training was judged on few of them. Of the training data,
    # only the examples that are needed are decoded.
    dataset = open_data(run, folder.root, data_path, data_dir, num_held_out=0)
    check_same_on_all_processes(
        {
            "the step of the checkpoint": run.step,
            "the run": identity,
            "the held-out data": dataset.held_out_fingerprint(),
            "the options": zlib.crc32(repr(given).encode()),
        }
    )
    extractor = None
    of_images = are_pictures(dataset.form, dataset.data_shape)
    _check_options_of_images(features, num_images, points, of_images, dataset.data_shape)
    space = features or run.config.evaluation.features
    is_named = space != "classifier" or features
    if of_images and (is_named or folder.classifier.exists() or dataset.is_labelled):
        extractor = prepare_features(run.config, dataset, wanted, space, folder.classifier)
    if "class_samples" in wanted and isinstance(run.model.prior, ClusteredPrior) and run.model.prior.num_classes:
        prepare_classifier(run.config, dataset, folder.classifier)
    barrier("features")

    mesh = make_mesh(Parallel(), jax.device_count(), 1)
    arrays = jax.device_get((run.params, run.posterior, run.training_posterior))  # every process has read the same
    params, posterior, training_posterior = jax.tree.map(lambda leaf: place(np.asarray(leaf), mesh), arrays)
    run = dataclasses.replace(run, params=params, posterior=posterior, training_posterior=training_posterior)
    keys = evaluation_keys(seed)
    rows = judged_rows(run.config.data, len(dataset.held_out))
    comparisons: list[Evaluator] = [
        SampleComparison(dataset, wanted, extractor, num_images, points, seed),
        ValueComparison(dataset, wanted, seed),
    ]
    with jax.set_mesh(mesh):
        x = to_unit_interval(place(dataset.held_out[rows], mesh))
        say("comparing samples with held-out data")
        results = {name: numbers for comparison in comparisons for name, numbers in comparison.run(run).items()}
        for name, evaluator in _evaluators_of_data(run, dataset, rows, x, keys, folder, seed).items():
            if name in wanted:
                say(f"computing {name}")
                results |= evaluator.run(run)
        missing = {"reason": f"data of kind {run.form.kind} and shape {dataset.data_shape} have no such metric"}
        results = dict.fromkeys(metrics or (), missing) | results
        results = {name: numbers | {"seed": seed} for name, numbers in results.items()}
        results = _kept(folder, run.step, identity, results, is_chosen=checkpoint == "best")
        say("drawing figures")
        described = draw_all(folder, keys.figures, run, x)
    if identity_of(folder) != identity:
        raise RunError(f"{folder.root} holds another run now, and some of its figures may be of the one before")
    if is_writer():
        write_json(folder.latents, described)
        write_report(folder)
    return results


def _evaluators_of_data(
    run: Run, dataset: Dataset, rows: np.ndarray, x: Array, keys: EvaluationKeys, folder: RunFolder, seed: int
) -> dict[str, Evaluator]:
    """What judges a model by the held-out data x, which are `rows` of those of the data set."""
    few, labels = x[: run.config.evaluation.num_reconstructions], dataset.held_out_labels
    estimator, proposal = run.config.evaluation.estimator.final, run.config.proposal()
    return {
        "log_likelihood": HeldOutLikelihood(
            keys.likelihood, x, estimator, proposal, dataset.held_out.dtype == np.uint8
        ),
        "reconstruction": Reconstruction(keys.reconstruction, few),
        "active_latents": ActiveLatents(keys.activity, few),
        "clusters": Clusters(keys.clusters, x, labels and (lambda i: labels(rows[i]))),
        "mixing": Mixing(keys.mixing, few),
        "latent_use": LatentUse(keys.latent_use, few, estimator, proposal),
        "distinct": Distinct(dataset, seed),
        "class_samples": ClassSamples(keys.class_samples, folder.classifier),
    }


def _kept(folder: RunFolder, step: int, identity: int, results: Numbers, is_chosen: bool) -> Numbers:
    """Writes evaluation.json; returns its metrics, with those that earlier calls found of this checkpoint.

    `is_chosen` says that the step is the best one by the data that judge it here; an earlier call may have said so.

    Raises:
      RunError: another run took the place of the one that was judged.
    """
    if identity_of(folder) != identity:
        raise RunError(f"{folder.root} holds another run now; what was found belongs to none of its models")
    results = _found_before(folder, step, identity) | results  # another evaluation may have written meanwhile
    results = {name: results[name] for name in METRICS if name in results}
    if is_writer():
        trained = [row["step"] for row in MetricsFile.read(folder.metrics)]
        before = folder.read_evaluation() or {}
        if (before.get("step"), before.get("run")) == (step, identity):
            is_chosen |= before.get("chosen_by_these_data", False)
        about = {"step": step, "trained_to": max(trained, default=step), "run": identity}
        about["chosen_by_these_data"] = is_chosen
        _set_aside(folder, step, identity)
        write_json(folder.evaluation, {**about, "metrics": results, **environment()})
    return results


def _found_before(folder: RunFolder, step: int, identity: int) -> Numbers:
    """What earlier commands found of this checkpoint of this run; versions before did not write of which run."""
    found: Numbers = {}
    for of_step in (step, None):
        kept = folder.read_evaluation(of_step)
        if kept and (kept["step"], kept.get("run", identity)) == (step, identity):
            found |= kept["metrics"]
    return found


def _set_aside(folder: RunFolder, step: int, identity: int) -> None:
    """Moves the numbers of another checkpoint, or of another run, to a file of their own."""
    kept = folder.read_evaluation()
    if kept is None or (kept["step"], kept.get("run", identity)) == (step, identity):
        return
    path = folder.evaluation_of(kept["step"])
    write_json(path, kept | {"metrics": _found_before(folder, kept["step"], kept.get("run", identity))})
    say(f"the numbers of step {kept['step']} are in {path} now")


def _check_options_of_images(
    features: str | None, num_images: int, points: str, of_images: bool, shape: Sequence[int]
) -> None:
    """Refuses what only distances between images would use."""
    for name, value, default in (
        ("features", features, None), ("num_images", num_images, NUM_IMAGES), ("points", points, "random"),
    ):  # fmt: skip
        if value != default and not of_images:
            raise ConfigError(f"{name}={value!r} is of images, and the run's data have shape {shape}; leave it out")
