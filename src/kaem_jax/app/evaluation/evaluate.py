"""Evaluates a trained run: numbers, figures and the report in its folder."""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np

from kaem_jax.app.data import Dataset, are_pictures, evaluated_rows
from kaem_jax.app.devices.mesh import Parallel, make_mesh
from kaem_jax.app.evaluation.evaluators import EVALUATORS, METRICS, SAMPLE_METRICS, Evaluator, HeldOut, Numbers
from kaem_jax.app.evaluation.features import Extractor, make_extractor
from kaem_jax.app.evaluation.gallery import draw_all
from kaem_jax.app.evaluation.report import write_report
from kaem_jax.app.log import read_metrics
from kaem_jax.app.runs.load import Run, load_run, open_data
from kaem_jax.app.runs.run_folder import RunFolder, environment
from kaem_jax.errors import ConfigError
from kaem_jax.files.writing import write_json
from kaem_jax.jax_utils.placement import place
from kaem_jax.jax_utils.processes import barrier, check_same_on_all_processes, is_writer, say
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.settings.arguments import check_integer
from kaem_jax.training.batch import to_unit_interval

NUM_IMAGES = 5000


@full_precision
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
) -> dict[str, Numbers]:
    """Evaluates the run in a folder, draws its figures and writes its report, on all devices of all processes.

    Writes evaluation.json, every number with the settings that reproduce it; latents.json, what each latent learned;
    all figures; and report.html. Numbers of another checkpoint move to evaluation_STEP.json.

    Args:
      checkpoint: see `kaem_jax.load_run`.
      metrics: names from `kaem_jax.app.evaluation.evaluators.METRICS`, or "module:Class" of an `Evaluator` of your
        own; by default all that suit the data.
      features: features by which images are compared; `evaluation.features` of the run by default.
      num_images: number of generated images, and largest number of real ones.
      data_path, data_dir: where the data are, if they are not where training found them.

    Returns:
      For each metric its numbers, or the reason why there are none; also those of earlier calls for this checkpoint.

    Raises:
      ConfigError, DataError, RunError: an argument does not suit the run, data are missing, or the run is damaged.
    """
    folder, wanted = RunFolder(pathlib.Path(workdir)), tuple(metrics or METRICS)
    evaluators: dict[type[Evaluator], str] = {}
    try:
        for name in wanted:
            evaluators.setdefault(EVALUATORS.get(name), name)
    except ValueError as error:
        raise ConfigError(f"--metrics: {error}") from None
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
            "the options": zlib.crc32(repr((metrics, features, num_images, seed)).encode()),
        }
    )
    extractor = _extractor(run, dataset, wanted, features, folder)

    mesh = make_mesh(Parallel(), jax.device_count(), 1)
    arrays = jax.device_get((run.params, run.posterior, run.training_posterior))  # every process has read the same
    params, posterior, training_posterior = jax.tree.map(lambda leaf: place(np.asarray(leaf), mesh), arrays)
    run = dataclasses.replace(run, params=params, posterior=posterior, training_posterior=training_posterior)
    rows = evaluated_rows(run.config.data, len(dataset.held_out))
    with jax.set_mesh(mesh):
        x = to_unit_interval(place(dataset.held_out[rows], mesh))
        on = HeldOut(run, dataset, rows, x, wanted, extractor, num_images, seed)
        results: dict[str, Numbers] = {}
        for number, (kind, first) in enumerate(evaluators.items(), start=1):
            say(f"evaluating {first}, {number} of {len(evaluators)}")
            evaluator = kind()
            for name, numbers in evaluator.evaluate(on).items():
                verdict = "" if "reason" in numbers else evaluator.verdict(numbers)
                results[name] = numbers | ({"verdict": verdict} if verdict else {})
        missing = {"reason": f"data of kind {run.form.kind} and shape {dataset.data_shape} have no such metric"}
        results = dict.fromkeys(set(metrics or ()) & set(METRICS), missing) | results
        results = {name: numbers | {"seed": seed} for name, numbers in results.items()}
        say("drawing figures")
        described = draw_all(folder, on.keys.figures, on)
    results = _kept(folder, run.step, results, is_chosen=checkpoint == "best")
    if is_writer():
        write_json(folder.latents, described)
        write_report(folder)
    return results


def _extractor(
    run: Run, dataset: Dataset, wanted: tuple[str, ...], features: str | None, folder: RunFolder
) -> Extractor | None:
    space = features or run.config.evaluation.features
    is_there = features or space != "classifier" or folder.classifier.exists() or dataset.is_labelled
    is_wanted = are_pictures(dataset.form, dataset.data_shape) and any(name in SAMPLE_METRICS for name in wanted)
    own, source = folder.classifier, run.config.data.name
    extractor = make_extractor(space, own, source, dataset) if is_wanted and is_there else None
    barrier("features")
    return extractor


def _kept(folder: RunFolder, step: int, results: dict[str, Numbers], is_chosen: bool) -> dict[str, Numbers]:
    """Writes evaluation.json and returns its metrics, with those of this checkpoint from earlier calls."""
    newest = folder.read_evaluation()  # another evaluation may have written meanwhile
    for found in (newest, folder.read_evaluation(step)):
        if found and found["step"] == step:  # once chosen by these data, always
            results = found["metrics"] | results
            is_chosen = is_chosen or found.get("chosen_by_these_data", False)
    results = {name: results[name] for name in (*METRICS, *results) if name in results}
    if is_writer():
        if newest and newest["step"] != step:
            folder.evaluation.replace(aside := folder.evaluation_of(newest["step"]))
            say(f"the numbers of step {newest['step']} are in {aside} now")
        trained_to = max((row["step"] for row in read_metrics(folder.metrics)), default=step)
        about = {"step": step, "trained_to": trained_to, "chosen_by_these_data": is_chosen}
        write_json(folder.evaluation, {**about, "metrics": results, **environment()})
    return results
