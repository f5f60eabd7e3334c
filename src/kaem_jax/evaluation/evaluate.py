"""Evaluates a trained run: numbers, figures and the report in its folder."""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax import Array

from kaem_jax.data import Dataset, are_pictures, is_image, judged_rows, to_unit_interval
from kaem_jax.devices.mesh import Parallel, make_mesh
from kaem_jax.devices.placement import place
from kaem_jax.devices.processes import barrier, check_same_on_all_processes, is_writer, say
from kaem_jax.errors import ConfigError
from kaem_jax.evaluation.evaluators import (
    METRICS,
    SAMPLE_METRICS,
    VALUE_METRICS,
    ActiveLatents,
    ClassSamples,
    Clusters,
    Distinct,
    Evaluator,
    HeldOutLikelihood,
    LatentUse,
    Mixing,
    Numbers,
    Reconstruction,
    SampleComparison,
    ValueComparison,
    prepare_features,
)
from kaem_jax.evaluation.features import Extractor, make_extractor
from kaem_jax.evaluation.gallery import draw_all
from kaem_jax.evaluation.report import write_report
from kaem_jax.files import write_json
from kaem_jax.runs.open_data import open_data
from kaem_jax.runs.run import Run, load_run
from kaem_jax.runs.run_folder import RunFolder, environment
from kaem_jax.settings.arguments import check_choice, check_integer
from kaem_jax.training.keys import evaluation_keys
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
    seed: int = 0,
    data_path: str | None = None,
    data_dir: str | None = None,
) -> Numbers:
    """Evaluates the run in a folder, draws its figures and writes its report, on all devices of all processes.

    Writes evaluation.json, every number with the settings that reproduce it; latents.json, what each latent learned;
    all figures; and report.html, which shows everything and needs no other file. Numbers of another checkpoint move to
    evaluation_STEP.json.

    Args:
      workdir: the folder.
      checkpoint: see `kaem_jax.load_run`.
      metrics: names from `kaem_jax.evaluation.evaluators.METRICS`; by default all that suit the data.
      features: features by which images are compared; `evaluation.features` of the run by default.
      num_images: number of generated images, and largest number of real ones.
      seed: seed of random draws.
      data_path, data_dir: where the data are, if they are not where training found them.

    Returns:
      For each metric its numbers, or the reason why there are none. Metrics of this checkpoint from earlier calls are
      included, unless this call repeats them.

    Raises:
      ValueError: a metric is unknown, or a number out of range.
      ConfigError: an argument does not suit the run.
      RunError: the run or checkpoint does not exist or is damaged.
      DataError: the data are missing.
    """
    given = {"metrics": metrics, "features": features, "num_images": num_images, "seed": seed}
    folder, wanted = RunFolder(pathlib.Path(workdir)), tuple(metrics or METRICS)
    for name in wanted:
        check_choice("metrics", name, METRICS)
    check_integer("num_images", num_images, low=20)
    check_integer("seed", seed, low=0)
    folder.read_evaluation()  # refused before anything is computed, if it is damaged
    if folder.root.is_dir() and not os.access(folder.root, os.W_OK):
        raise ConfigError(f"--workdir {folder.root} cannot be written to, and the numbers go there; copy it")
    run = load_run(folder.root, checkpoint)
    # Samples are compared with all held-out data, even if training used few of them.
    dataset = open_data(run, folder.root, data_path, data_dir, num_held_out=0)
    check_same_on_all_processes(
        {
            "the step of the checkpoint": run.step,
            "the held-out data": dataset.held_out_fingerprint(),
            "the options": zlib.crc32(repr(given).encode()),
        }
    )
    extractor = _extractor(run, dataset, wanted, features, folder)

    mesh = make_mesh(Parallel(), jax.device_count(), 1)
    arrays = jax.device_get((run.params, run.posterior, run.training_posterior))  # every process has read the same
    params, posterior, training_posterior = jax.tree.map(lambda leaf: place(np.asarray(leaf), mesh), arrays)
    run = dataclasses.replace(run, params=params, posterior=posterior, training_posterior=training_posterior)
    rows = judged_rows(run.config.data, len(dataset.held_out))
    with jax.set_mesh(mesh):
        x = to_unit_interval(place(dataset.held_out[rows], mesh))
        results: Numbers = {}
        for names, evaluator in _evaluators(run, dataset, rows, x, folder, wanted, extractor, num_images, seed):
            if any(name in wanted for name in names):
                say(f"evaluating: {type(evaluator).__name__}")
                results |= evaluator.run(run)
        missing = {"reason": f"data of kind {run.form.kind} and shape {dataset.data_shape} have no such metric"}
        results = dict.fromkeys(metrics or (), missing) | results
        results = {name: numbers | {"seed": seed} for name, numbers in results.items()}
        say("drawing figures")
        described = draw_all(folder, evaluation_keys(seed).figures, run, x)
    results = _kept(folder, run.step, results, is_chosen=checkpoint == "best")
    if is_writer():
        write_json(folder.latents, described)
        write_report(folder)
    return results


def _extractor(
    run: Run, dataset: Dataset, wanted: tuple[str, ...], features: str | None, folder: RunFolder
) -> Extractor | None:
    """The feature extractor for the `wanted` metrics; trains the classifier if they or samples of classes need it."""
    extractor = None
    space = features or run.config.evaluation.features
    can_classify = dataset.is_labelled and is_image(dataset.data_shape)
    is_there = features or space != "classifier" or folder.classifier.exists() or can_classify
    if are_pictures(dataset.form, dataset.data_shape) and is_there:
        extractor = prepare_features(run.config, dataset, wanted, space, folder.classifier)
    if "class_samples" in wanted and run.config.data.labels and can_classify:
        make_extractor("classifier", folder.classifier, run.config.data.name, dataset)
    barrier("features")
    return extractor


def _evaluators(
    run: Run,
    dataset: Dataset,
    rows: np.ndarray,
    x: Array,
    folder: RunFolder,
    wanted: tuple[str, ...],
    extractor: Extractor | None,
    num_images: int,
    seed: int,
) -> list[tuple[tuple[str, ...], Evaluator]]:
    """Evaluators with the names of their metrics; x are the held-out data at `rows` of the data set."""
    keys = evaluation_keys(seed)
    few, labels = x[: run.config.evaluation.num_reconstructions], dataset.held_out_labels
    estimator, proposal = run.config.evaluation.estimator.final, run.config.proposal()
    of_pixels = dataset.held_out.dtype == np.uint8
    return [
        (SAMPLE_METRICS, SampleComparison(dataset, wanted, extractor, num_images, seed)),
        (VALUE_METRICS, ValueComparison(dataset, wanted, seed)),
        (("log_likelihood",), HeldOutLikelihood(keys.likelihood, x, estimator, proposal, of_pixels)),
        (("reconstruction",), Reconstruction(keys.reconstruction, few)),
        (("active_latents",), ActiveLatents(keys.activity, few)),
        (("clusters",), Clusters(keys.clusters, x, labels and (lambda i: labels(rows[i])))),
        (("mixing",), Mixing(keys.mixing, few)),
        (("latent_use",), LatentUse(keys.latent_use, few, estimator, proposal)),
        (("distinct",), Distinct(dataset, seed)),
        (("class_samples",), ClassSamples(keys.class_samples, folder.classifier)),
    ]


def _kept(folder: RunFolder, step: int, results: Numbers, is_chosen: bool) -> Numbers:
    """Writes evaluation.json and returns its metrics, with those of this checkpoint from earlier calls.

    `is_chosen` says that the held-out data of this evaluation chose the step; it stays true if an earlier call said so.
    """
    newest = folder.read_evaluation()  # another evaluation may have written meanwhile
    for found in (newest, folder.read_evaluation(step)):
        if found and found["step"] == step:
            results = found["metrics"] | results
            is_chosen = is_chosen or found.get("chosen_by_these_data", False)
    results = {name: results[name] for name in METRICS if name in results}
    if is_writer():
        if newest and newest["step"] != step:
            folder.evaluation.replace(aside := folder.evaluation_of(newest["step"]))
            say(f"the numbers of step {newest['step']} are in {aside} now")
        trained_to = max((row["step"] for row in MetricsFile.read(folder.metrics)), default=step)
        about = {"step": step, "trained_to": trained_to, "chosen_by_these_data": is_chosen}
        write_json(folder.evaluation, {**about, "metrics": results, **environment()})
    return results
