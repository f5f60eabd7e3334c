"""What different models learn in equal time: likelihood, samples and their cost, by one command that can be resumed.

    python benchmarks/quality.py --data_dir DIR --out FOLDER [--experiments mnist svhn cifar10] [--seconds 200]
    python benchmarks/quality.py --data_dir DIR --out FOLDER --models ula_from_prior --set likelihood.sigma=0.3

Each run trains for so many seconds of steps (compilation apart) on minibatches of 32. How many fit is measured once for
each experiment, before the first run: models take turns, on a machine that must be quiet then. All seeds make as many,
with learning rates that fall along a cosine to the last. FOLDER gets updates.json, results.jsonl, one line for each
experiment, model and seed, and a picture of samples for each experiment; what is in it already is not done again.
Copy its lines to benchmarks/results/quality.jsonl, from which `python benchmarks/pages.py` makes the tables.

All models are evaluated alike: held-out nats of 256 data by annealing from Laplace approximations (a bound where the
effective sample size says so; none for flow matching, which has no normaliser), and distances of
2,000 samples to 2,000 held-out images in features of a classifier of the training data. Beside them are the distances
of as many training images, about what a perfect model would reach.
"""

import dataclasses
import itertools
import json
import pathlib
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import Training, emit, make_parser, time_updates
from models import NAMES, REFITS, SHARES, STAGED, configure
from rivals import mixture_of

from kaem_jax.app.data import Dataset, load_dataset, to_pixels
from kaem_jax.app.evaluation import figures
from kaem_jax.app.evaluation.evaluators import log_likelihood
from kaem_jax.app.evaluation.evaluators.sample_comparison import compare
from kaem_jax.app.evaluation.features import Extractor, make_extractor
from kaem_jax.app.evaluation.generate import sample_in_batches
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.model import Params
from kaem_jax.priors import Prior
from kaem_jax.training.batch import to_unit_interval
from kaem_jax.training.refit import posterior_codes

UPDATES_A_CALL, NUM_TURNS = 20, 20  # turns of the measurement, of one call each
PROBE_STEPS = UPDATES_A_CALL * (2 + NUM_TURNS)
# The log p of one image by two seeds of one model differs by tens of nats (docs/decisions/image-benchmarks.md).
NUM_IMAGES, NUM_SHOWN, NUM_JUDGED = 2000, 12, 256
SHARE_OF_REFITS = 0.25  # of the time
NUM_TIMED = 4096  # latents are drawn in blocks of so many
METRICS = ("fid", "kid", "precision_recall", "density_coverage")
JUDGES = f"{NUM_JUDGED} data, {NUM_IMAGES} images"
Draw = Callable[[jax.Array, int], np.ndarray]  # samples [n, H, W, C] in [0, 1]


def configured(name: str, model: str, given: Namespace, num_steps: Sequence[int]) -> Experiment:
    """The experiment of a run, with what the command line replaces; `num_steps` of each stage."""
    num_held_out = f"data.num_held_out={NUM_IMAGES}"  # `tiny` holds out a tenth
    return configure(name, model, given.data_dir, num_steps, num_held_out, *given.set)


def start(name: str, model: str, given: Namespace, dataset: Dataset, seed: int, num_steps: Sequence[int]) -> Training:
    """A run before its first update."""
    return Training(configured(name, model, given, num_steps), dataset, seed, per_call=UPDATES_A_CALL)


def probe(name: str, model: str, given: Namespace, dataset: Dataset, stage: int) -> Training:
    """A run at the beginning of a stage, on few data, so that all chains have started after two calls."""
    config = configured(name, model, given, [PROBE_STEPS] * len(shares_of(name, model)))
    few = dataclasses.replace(dataset, train=dataset.train[np.arange(UPDATES_A_CALL * config.data.batch_size)])
    return Training(config, few, per_call=UPDATES_A_CALL, first_stage=stage)


def numbers_of(run: Run, dataset: Dataset) -> dict[str, Any]:
    """What held-out data say of a model."""
    numbers: dict[str, Any] = {"sigma": getattr(run.config.likelihood, "sigma", None)}
    if not run.model.prior.is_normalized:
        return numbers
    x, estimator = to_unit_interval(jnp.asarray(dataset.held_out[:NUM_JUDGED])), run.config.evaluation.estimator
    found = log_likelihood.evaluate(jax.random.key(7), run, x, estimator, run.config.proposal(), of_pixels=True)
    wanted = ("nats", "standard_error", "ess", "is_bound", "bits_per_dimension_of_256_levels")
    return numbers | {key: found[key] for key in wanted}


def shares_of(name: str, model: str) -> tuple[float, ...]:
    """The shares of the time for the stages of a model."""
    return SHARES[name] if model in STAGED else (1.0,)


def updates_in_time(given: Namespace, name: str, dataset: Dataset) -> dict[str, list[int]]:
    """Updates of each stage of each model that take the wanted seconds; their costs are measured once."""
    path = given.out / "updates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    models = {REFITS[model][0] if model in REFITS else model for model in given.models}
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


def some_training_data(dataset: Dataset, num: int) -> np.ndarray:
    """Training data [num, *data_shape], or all there are, a yardstick of distances."""
    return dataset.train[np.sort(np.random.default_rng(0).permutation(len(dataset.train))[:num])]


def judge_samples(draw: Draw, dataset: Dataset, extractor: Extractor | None) -> tuple[np.ndarray, dict[str, float]]:
    """Some samples to look at, and the numbers of all."""
    images = to_pixels(draw(jax.random.key(0), NUM_IMAGES))
    held_out = to_pixels(dataset.held_out[:NUM_IMAGES])
    found = compare(METRICS, images, held_out, lambda num: to_pixels(some_training_data(dataset, num)), extractor)
    numbers = {
        "frechet_distance": found["fid"]["value"],
        "frechet_distance_of_training_images": found["fid"]["value_of_training_images"],
        "kernel_distance": found["kid"]["value"],
        **{key: found["precision_recall"][key] for key in ("precision", "recall")},
        **{key: found["density_coverage"][key] for key in ("density", "coverage")},
    }
    return images[:NUM_SHOWN], numbers


def finished(training: Training, model: str, dataset: Dataset, seed: int) -> Run:
    """The run of a trained model, with the prior of `REFITS` if it has one, or that of its pseudo-inputs."""
    run = Run.of_state(training.config, training.model, training.state, training.num_updates, dataset.form)
    if model in REFITS:
        return refitted(run, model, dataset, seed)
    if model == "vamp":
        return _with_prior(run, *mixture_of(training.config.posterior.encoder, run.model, run.params))  # type: ignore[attr-defined]
    return run


def refitted(run: Run, model: str, dataset: Dataset, seed: int) -> Run:
    """The run with the prior of `REFITS`, fitted to one posterior draw of each training datum."""
    x, key = dataset.train[np.arange(len(dataset.train))], jax.random.key(seed)
    [codes] = posterior_codes(key, run.model, run.params, x, run.training_posterior, 1)
    return _with_prior(run, *REFITS[model][1](seed, codes))


def _with_prior(run: Run, prior: Prior, params: Params) -> Run:
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, prior=prior), params=run.params | {"prior": params}
    )


def evaluated(run: Run, dataset: Dataset, extractor: Extractor | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Some samples of a run, and its numbers."""

    def draw(key: jax.Array, num: int) -> np.ndarray:
        return np.concatenate(list(sample_in_batches(key, run.model, run.params, num)))

    images, numbers = judge_samples(draw, dataset, extractor)
    numbers = numbers_of(run, dataset) | numbers
    started = time.perf_counter()
    draw(jax.random.key(1), NUM_TIMED)  # compiled by now
    return images, numbers | {"seconds_for_10000_samples": (time.perf_counter() - started) * 10_000 / NUM_TIMED}


def draw_picture(folder: pathlib.Path, name: str, dataset: Dataset) -> None:
    """The first seed's samples of every model that is there, under held-out images."""
    rows = {"held out": to_pixels(dataset.held_out[:NUM_SHOWN])}
    for model, words in NAMES.items():
        if (path := folder / "samples" / f"{name}_{model}.npy").exists():
            rows[words] = np.load(path)
    title = f"{name}: samples of each model after equal time"
    images = np.stack(list(rows.values())).astype(np.float32) / 255
    figures.plot_rows(folder / f"{name}.png", images, list(rows), [""] * NUM_SHOWN, title)


def main() -> None:
    """Adds one JSON line for each experiment, model and seed that results.jsonl does not have."""
    given = make_parser(
        __doc__, data_dir=str, out=pathlib.Path, experiments=["mnist", "svhn", "cifar10"], seconds=250.0,
        models=[*STAGED, "vae", "vae_then_10_gaussians", "vae_then_100_gaussians"],
        seeds=[0, 1, 2], set=[], measure=False,
    ).parse_args()  # fmt: skip
    (given.out / "samples").mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    identity = ("experiment", "model", "seed", "conditions", "judges")
    done = {tuple(line.get(key) for key in identity) for line in lines}
    conditions = f"{given.seconds:g} s, {' '.join(given.set) or 'test'}"
    for name in given.experiments:
        config = configured(name, "vae", given, [PROBE_STEPS])
        dataset = load_dataset(config.data)
        updates, trained_as = updates_in_time(given, name, dataset), None
        of_settings = "_".join([name, *given.set])
        if given.measure:
            continue
        classifier = given.out / f"classifier_{name}_{config.data.held_out}.npz"  # of other training data for each
        extractor = make_extractor("classifier", classifier, config.data.name, dataset)
        for seed, model in itertools.product(given.seeds, given.models):
            case = dict(zip(identity, (name, model, seed, conditions, JUDGES), strict=True))
            if tuple(case.values()) in done:
                continue
            base = REFITS[model][0] if model in REFITS else model
            lengths = updates[base]
            if model in REFITS:
                lengths = [UPDATES_A_CALL * int((1 - SHARE_OF_REFITS) * lengths[0] / UPDATES_A_CALL)]
            if (base, seed, lengths) != trained_as:  # models that differ in their fit alone are trained once
                training, trained_as = start(name, base, given, dataset, seed, lengths), (base, seed, lengths)
                time_updates(training, sum(lengths) // UPDATES_A_CALL)
            started = time.perf_counter()
            run = finished(training, model, dataset, seed)
            fit_seconds = time.perf_counter() - started if model in REFITS else training.fit_seconds
            images, numbers = evaluated(run, dataset, extractor)
            if seed == 0:
                np.save(given.out / "samples" / f"{of_settings}_{model}.npy", images)
            line = emit(
                "quality", case, {"num_steps": sum(lengths), "stages": lengths, "fit_seconds": fit_seconds} | numbers
            )
            with results.open("a") as file:
                file.write(line + "\n")
        draw_picture(given.out, of_settings, dataset)


if __name__ == "__main__":
    main()
