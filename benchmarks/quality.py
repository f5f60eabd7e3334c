"""What different models of images learn in equal time (docs/quality.md): likelihood, samples and their cost.

    python benchmarks/quality.py --data_dir DIR --out FOLDER [--experiments mnist svhn cifar10] [--seconds 200]
    python benchmarks/quality.py --data_dir DIR --out FOLDER --models ula_from_prior --set likelihood.sigma=0.3

How many updates fit into `--seconds`, without compilation, is measured once for each experiment, before the first run:
models take turns, on a machine that must be quiet then. All seeds make as many, with learning rates that fall along a
cosine to the last. FOLDER gets updates.json, results.jsonl with one line for each experiment, model and seed, and a
picture of samples for each experiment. Run it again to go on after an interruption.
"""

import dataclasses
import itertools
import json
import pathlib
from argparse import Namespace
from collections.abc import Sequence

import numpy as np
from lib.baselines import mixture_of
from lib.image_evaluation import NUM_EVALUATED, NUM_IMAGES, NUM_SHOWN, classifier, evaluate, refitted, with_prior
from lib.measure import Results, Training, script, time_updates, timed
from lib.models import NAMES, SHARES, STAGED, base_of, configure, fit_of

from kaem_jax.app.data import Dataset, load_dataset, to_pixels
from kaem_jax.app.evaluation import figures
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run

UPDATES_A_CALL, NUM_TURNS = 20, 20  # turns of the measurement, of one call each
PROBE_STEPS = UPDATES_A_CALL * (2 + NUM_TURNS)
SHARE_OF_REFITS = 0.25  # of the time
EVALUATED = f"{NUM_EVALUATED} data, {NUM_IMAGES} images"


def configured(name: str, model: str, given: Namespace, num_steps: Sequence[int]) -> Experiment:
    """The experiment of a run, with what the command line replaces; `num_steps` of each stage."""
    num_held_out = f"data.num_held_out={NUM_IMAGES}"  # `tiny` holds out a tenth
    return configure(name, model, given.data_dir, num_steps, num_held_out, *given.set)


def probe(name: str, model: str, given: Namespace, dataset: Dataset, stage: int) -> Training:
    """A run at the beginning of a stage, on few data, so that all chains have started after two calls."""
    config = configured(name, model, given, [PROBE_STEPS] * len(shares_of(name, model)))
    few = dataclasses.replace(dataset, train=dataset.train[np.arange(UPDATES_A_CALL * config.data.batch_size)])
    return Training(config, few, per_call=UPDATES_A_CALL, first_stage=stage)


def shares_of(name: str, model: str) -> tuple[float, ...]:
    """The shares of the time for the stages of a model."""
    return SHARES[name] if model in STAGED else (1.0,)


def updates_in_time(given: Namespace, name: str, dataset: Dataset) -> dict[str, list[int]]:
    """Updates of each stage of each model that take the wanted seconds; their costs are measured once."""
    path = given.out / "updates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    models = set(map(base_of, given.models))
    stages = [(model, stage) for model in sorted(models) for stage in range(len(shares_of(name, model)))]
    cases = {(model, stage): " ".join([name, model, f"stage {stage + 1}", *given.set]) for model, stage in stages}
    trainings = {key: probe(name, key[0], given, dataset, key[1]) for key, case in cases.items() if case not in known}
    for training in trainings.values():
        time_updates(training, 2)  # compiles, and starts chains
    turns = [{key: time_updates(training, 1) for key, training in trainings.items()} for _ in range(NUM_TURNS)]
    for key in trainings:
        known[cases[key]] = float(np.median([turn[key] for turn in turns])) / UPDATES_A_CALL
    path.write_text(json.dumps(known, indent=2) + "\n")
    return {
        model: [
            UPDATES_A_CALL * int(share * given.seconds / known[cases[model, stage]] / UPDATES_A_CALL)
            for stage, share in enumerate(shares_of(name, model))
        ]
        for model in models
    }


def finished(training: Training, model: str, dataset: Dataset, seed: int) -> tuple[Run, float]:
    """The run of a trained model, with its fitted prior or that of its pseudo-inputs; seconds of its fit."""
    run = Run.of_state(training.config, training.model, training.state, training.num_updates, dataset.form)
    if fit_of(model):
        return timed(refitted, run, model, dataset, seed)
    if model == "vamp":
        encoder = training.config.posterior.encoder  # type: ignore[attr-defined]
        run = with_prior(run, *mixture_of(encoder, run.model, run.params))
    return run, training.fit_seconds


def draw_picture(folder: pathlib.Path, name: str, dataset: Dataset) -> None:
    """The first seed's samples of every model that is there, under held-out images."""
    rows = {"held out": to_pixels(dataset.held_out[:NUM_SHOWN])}
    for model, words in NAMES.items():
        if (path := folder / "samples" / f"{name}_{model}.npy").exists():
            rows[words] = np.load(path)
    title = f"{name}: samples of each model after equal time"
    images = np.stack(list(rows.values())).astype(np.float32) / 255
    figures.plot_rows(folder / f"{name}.png", images, list(rows), [""] * NUM_SHOWN, title)


@script(
    __doc__, data_dir=str, out=pathlib.Path, experiments=["mnist", "svhn", "cifar10"], seconds=250.0,
    models=[*STAGED, "vae", "vae_then_10_gaussians", "vae_then_100_gaussians"], seeds=[0, 1, 2], set=[], measure=False,
)  # fmt: skip
def main(given: Namespace) -> None:
    """Adds one JSON line for each experiment, model and seed that results.jsonl does not have."""
    results, samples = Results(given.out), given.out / "samples"
    samples.mkdir(exist_ok=True)
    conditions = f"{given.seconds:g} s, {' '.join(given.set) or 'test'}"
    for name in given.experiments:
        data = configured(name, "vae", given, [PROBE_STEPS]).data
        dataset = load_dataset(data)
        updates, trained_as = updates_in_time(given, name, dataset), None
        if given.measure:
            continue
        extractor, of_settings = classifier(given.out, data, dataset), "_".join([name, *given.set])
        for seed, model in itertools.product(given.seeds, given.models):
            case = {"experiment": name, "model": model, "seed": seed, "conditions": conditions, "judges": EVALUATED}
            if results.has(case):
                continue
            base = base_of(model)
            lengths = updates[base]
            if fit_of(model):
                lengths = [UPDATES_A_CALL * int((1 - SHARE_OF_REFITS) * lengths[0] / UPDATES_A_CALL)]
            if (base, seed, lengths) != trained_as:  # models that differ in their fit alone are trained once
                config, trained_as = configured(name, base, given, lengths), (base, seed, lengths)
                training = Training(config, dataset, seed, per_call=UPDATES_A_CALL)
                time_updates(training, sum(lengths) // UPDATES_A_CALL)
            run, fit_seconds = finished(training, model, dataset, seed)
            images, numbers = evaluate(run, dataset, extractor)
            if seed == 0:
                np.save(samples / f"{of_settings}_{model}.npy", images)
            spent = {"num_steps": sum(lengths), "stages": lengths, "fit_seconds": fit_seconds}
            results.add("quality", case, spent | numbers)
        draw_picture(given.out, of_settings, dataset)
