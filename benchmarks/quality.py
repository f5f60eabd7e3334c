"""What different models learn in equal time: likelihood, samples and their cost, by one command that can be resumed.

    python benchmarks/quality.py --data_dir DIR --out FOLDER [--experiments mnist svhn cifar10] [--seconds 200]
    python benchmarks/quality.py --data_dir DIR --out FOLDER --models variational ula_from_prior mala_from_encoder

Each run trains for so many seconds of steps (compilation apart) on minibatches of 32. How many fit is measured once for
each experiment, before the first run: models take turns, on a machine that must be quiet then. All seeds make as many,
with learning rates that fall along a cosine to the last. FOLDER gets updates.json, results.jsonl, one line for each
experiment, model and seed, and a picture of samples for each experiment; what is in it already is not done again.
`python benchmarks/seeds.py FOLDER/results.jsonl` makes tables of them.

The judges are the same for all: held-out nats of 256 data by annealing from Laplace approximations (a bound where the
effective sample size says so; none for the neural prior, which has no normaliser, nor for diffusion), and distances of
2,000 samples to 2,000 held-out images in features of a classifier of the training data. Beside them are the distances
of as many training images, and of images that are decoded from an encoder's draws for training images: what lies
between the latter and the distance of samples is the prior's part.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ddpm import DiffusionTraining
from measure import environment
from models import DATA, JUDGE, MODELS, Training, configure, time_updates, train

from kaem_jax.data import Dataset, load_dataset, to_pixels, to_unit_interval
from kaem_jax.evaluation import figures
from kaem_jax.evaluation.evaluators import HeldOutLikelihood, Reconstruction, prepare_features
from kaem_jax.evaluation.features import Extractor
from kaem_jax.evaluation.generate import reconstruct_in_batches, sample_in_batches
from kaem_jax.evaluation.metrics.comparison import compare
from kaem_jax.inference.evidence import make_estimator
from kaem_jax.inference.samplers import FrozenSampler, ProposalChains
from kaem_jax.runs.run import Run
from kaem_jax.runs.experiment import Experiment

NUM_TURNS, UPDATES_A_TURN = 20, 4  # of the measurement
PROBE_STEPS = 1 + NUM_TURNS * UPDATES_A_TURN
# The log p of one image by two seeds of one model differs by tens of nats (BUILD_NOTES.md, "Quality").
NUM_IMAGES, NUM_SHOWN, NUM_JUDGED = 2000, 12, 256
NUM_TIMED = 4096  # latents are drawn in blocks of so many
METRICS = ("fid", "kid", "precision_recall", "density_coverage")
Draw = Callable[[jax.Array, int], np.ndarray]  # samples [n, H, W, C] in [0, 1]


def configured(name: str, model: str, given: argparse.Namespace, num_steps: int) -> Config:
    """The configuration of a run, with what the command line replaces."""
    changes: dict[str, Any] = {"data.num_held_out": NUM_IMAGES}  # the variant `tiny` takes a tenth
    for setting in given.set:
        path, _, value = setting.partition("=")
        changes[path] = json.loads(value)
    if given.held_out == "validation":
        changes |= {"data.held_out": "validation", "data.validation_size": NUM_IMAGES}
    return configure(name, model, given.data_dir, num_steps, changes)


def train_ours(
    name: str, model_name: str, dataset: Dataset, seed: int, num_steps: int, given: argparse.Namespace
) -> tuple[Draw, dict, Draw | None]:
    """A KAEM or VAE: how to draw from it, its numbers, and, with an encoder, how to decode codes of training data."""
    config = configured(name, model_name, given, num_steps)
    model, state, sampler, seconds = train(config, dataset, seed)
    log_sigma = state.evaluated["likelihood"].get("log_sigma", np.log(getattr(config.likelihood, "sigma", np.nan)))
    numbers: dict[str, Any] = {"seconds": seconds, "num_steps": num_steps, "sigma": float(np.exp(log_sigma).mean())}
    judge = FrozenSampler(ProposalChains(proposal=JUDGE), (), num_steps)
    run = Run(config, model, state.evaluated, num_steps, sampler, judge)
    if model.prior.is_normalized:
        x = to_unit_interval(jnp.asarray(dataset.held_out[:NUM_JUDGED]))
        estimator = make_estimator("ais", proposal=JUDGE, num_chains=8, num_temperatures=128, batch_size=64)
        likelihood = HeldOutLikelihood(jax.random.key(7), x, estimator, of_pixels=True).run(run)["log_likelihood"]
        wanted = ("nats", "standard_error", "ess", "is_bound", "bits_per_dimension_of_256_levels")
        numbers |= {key: likelihood[key] for key in wanted}
        error = Reconstruction(jax.random.key(8), x).run(run)["reconstruction"]["mean_squared_error"]
        numbers["reconstruction_error"] = error

    def draw(key: jax.Array, num: int) -> np.ndarray:
        return np.concatenate(list(sample_in_batches(key, model, state.evaluated, num)))

    def draw_from_codes(key: jax.Array, num: int) -> np.ndarray:
        of_encoder = dataclasses.replace(run, posterior=sampler)  # one draw a datum: its mean is that draw
        return np.concatenate(list(reconstruct_in_batches(key, of_encoder, some_training_data(dataset, num))))

    return draw, numbers, draw_from_codes if config.posterior.kind == "variational" else None


def updates_in_time(given: argparse.Namespace, name: str, dataset: Dataset) -> dict[str, int]:
    """Updates of each model that take the wanted seconds, measured once."""
    path = given.out / "updates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    cases = {model: " ".join([name, model, f"{given.seconds:g} s", *given.set]) for model in given.models}
    trainings: dict[str, Training | DiffusionTraining] = {}
    for model, case in cases.items():
        if case in known:
            continue
        if model == "ddpm":
            trainings[model] = DiffusionTraining(dataset, 0, PROBE_STEPS)
        else:
            trainings[model] = Training(configured(name, model, given, PROBE_STEPS), dataset, 0)
    for training in trainings.values():
        time_updates(training, 1)  # compiles
    turns = [
        {model: time_updates(training, UPDATES_A_TURN) for model, training in trainings.items()}
        for _ in range(NUM_TURNS)
    ]
    for model in trainings:
        known[cases[model]] = int(given.seconds * UPDATES_A_TURN / np.median([turn[model] for turn in turns]))
    path.write_text(json.dumps(known, indent=2) + "\n")
    return {model: known[case] for model, case in cases.items()}


def train_ddpm(dataset: Dataset, seed: int, num_steps: int) -> tuple[Draw, dict]:
    """The diffusion model: how to draw from it, and its numbers."""
    training = DiffusionTraining(dataset, seed, num_steps)
    time_updates(training, 1)
    seconds = time_updates(training, num_steps - 1)
    return training.model.sample, {"seconds": seconds, "num_steps": num_steps}


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


def seconds_of_samples(draw: Draw) -> float:
    """Seconds of 10,000 samples, by a function that has drawn before, so that it is compiled."""
    started = time.perf_counter()
    draw(jax.random.key(1), NUM_TIMED)
    return (time.perf_counter() - started) * 10_000 / NUM_TIMED


def draw_picture(folder: pathlib.Path, name: str, dataset: Dataset) -> None:
    """The first seed's samples of every model that is there, under held-out images."""
    rows = {"held out": to_pixels(dataset.held_out[:NUM_SHOWN])}
    for model in (*MODELS, "ddpm"):
        path = folder / "samples" / f"{name}_{model}.npy"
        if path.exists():
            rows[model] = np.load(path)
    title = f"{name}: samples of each model after equal time"
    images = np.stack(list(rows.values())).astype(np.float32) / 255
    figures.plot_rows(folder / f"{name}.png", images, list(rows), [""] * NUM_SHOWN, title)


def main() -> None:
    """Adds one JSON line for each experiment, model and seed that results.jsonl does not have."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--experiments", nargs="+", default=["mnist", "svhn", "cifar10"], choices=list(DATA))
    standard = ["clustered", "mixture", "vae", "neural", "ddpm"]
    parser.add_argument("--models", nargs="+", default=standard, choices=[*MODELS, "ddpm"])
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--held_out", choices=("test", "validation"), default="test", help="settings are chosen on the latter"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=JSON", help="settings of all models but diffusion"
    )
    parser.add_argument("--only_measure", action="store_true", help="how many updates fit, and end")
    given = parser.parse_args()
    (given.out / "samples").mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    # What other judges found cannot be compared; lines of before do not say.
    judges = f"{NUM_JUDGED} data, {NUM_IMAGES} images"
    same = [line for line in lines if line.get("judges") == judges]
    done = {(line["experiment"], line["model"], line["seed"], line["conditions"]) for line in same}
    conditions = f"{given.seconds:g} s, {' '.join([given.held_out, *given.set])}"
    for name in given.experiments:
        config = configured(name, "vae", given, PROBE_STEPS)
        dataset = load_dataset(config.data)
        classifier = given.out / f"classifier_{name}_{given.held_out}.npz"  # of other training data for each
        extractor = prepare_features(config, dataset, METRICS, "classifier", classifier)
        updates = updates_in_time(given, name, dataset)
        if given.only_measure:
            continue
        for seed, model in itertools.product(given.seeds, given.models):
            if (f"{name}:tiny", model, seed, conditions) in done:
                continue
            if model == "ddpm":
                (draw, numbers), of_codes = train_ddpm(dataset, seed, updates[model]), None
            else:
                draw, numbers, of_codes = train_ours(name, model, dataset, seed, updates[model], given)
            images, judged = judge_samples(draw, dataset, extractor)
            judged["seconds_for_10000_samples"] = seconds_of_samples(draw)
            if of_codes:  # what samples would be if the prior were the law of the codes
                judged["frechet_distance_of_codes"] = judge_samples(of_codes, dataset, extractor)[1]["frechet_distance"]
            if seed == given.seeds[0]:
                np.save(given.out / "samples" / f"{name}_{model}.npy", images)
            size = {"experiment": f"{name}:tiny", "model": model, "seed": seed, "conditions": conditions}
            size["judges"] = judges
            rounded = {key: float(f"{value:.5g}") for key, value in (numbers | judged).items()}
            line = json.dumps({"benchmark": "quality", **size, **rounded, **environment()})
            print(line, flush=True)
            with results.open("a") as file:
                file.write(line + "\n")
        draw_picture(given.out, name, dataset)


if __name__ == "__main__":
    main()
