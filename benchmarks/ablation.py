"""What the parts of the paper's tempering do to training on SVHN: objective and exchanges; JSON lines.

    python benchmarks/ablation.py --data_dir DIR --out FOLDER [--updates 800] [--seeds 0]

All arms have the paper's prior, decoder and sigma, with the sizes of `svhn:paper_tiny`, constant learning rates and
minibatches of 16. Chains are 20 ULA steps from prior draws. Plain ULA makes `--updates` updates; tempered arms have 8
rungs, and make as many decoder evaluations in fewer updates. Another arm is plain ULA for as few updates.
Exchanges are accepted for each datum, as in the library, or jointly for the minibatch, as in the paper's code.

After training, a population of 8 rungs runs 40 rounds on 16 held-out images. Its swap acceptance and round trips are
those of the arm's exchanges; the squared error of its last rung is always that of separate ones. Nats and distances are
those of quality.py. FOLDER/results.jsonl gets one line for each arm and seed. Run it again to go on after an
interruption.
"""

import contextlib
import itertools
import pathlib
from argparse import Namespace
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax import Array
from lib.image_evaluation import NUM_IMAGES, classifier, evaluate_likelihood, evaluate_samples
from lib.measure import Results, Training, experiment, script, time_updates

import kaem_jax as kaem
from kaem_jax.app.data import Dataset, load_dataset
from kaem_jax.app.evaluation.features import Extractor
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers.chains import ChainSampler
from kaem_jax.mcmc import ULA, rounds
from kaem_jax.model import Params
from kaem_jax.training.batch import to_unit_interval

UPDATES_A_CALL, NUM_RUNGS, NUM_EVALUATED, NUM_POPULATIONS, NUM_ROUNDS = 10, 8, 32, 16, 40
SETTINGS = (
    "data.batch_size=16", f"data.num_held_out={NUM_IMAGES}",
    "optimizer.prior.schedule=constant", "optimizer.decoder.schedule=constant",
    "evaluation.estimator.num_temperatures=64", "evaluation.estimator.batch_size=64",
    "evaluation.proposal.kind=laplace", "evaluation.proposal.num_modes=2", "evaluation.proposal.num_draws=1000",
    "evaluation.proposal.num_steps=10",
)  # fmt: skip
# Objective, exchanges, and whether the arm makes as many decoder evaluations as plain ULA, or as few updates as others.
ARMS: dict[str, tuple[str, str, bool]] = {
    "ula": ("ula", "none", True),
    "ula_few_updates": ("ula", "none", False),
    "posterior_separate": ("posterior", "separate", True),
    "posterior_joint": ("posterior", "joint", True),
    "thermodynamic_separate": ("thermodynamic", "separate", True),
    "thermodynamic_joint": ("thermodynamic", "joint", True),
}


@contextlib.contextmanager
def joint_exchanges() -> Iterator[None]:
    """Programs traced meanwhile accept or reject each exchange for all data at once, by the sum of their log ratios."""
    separate = rounds.exchange

    def exchange(key: Array, rung: Array, log_likelihood: Array, *how: Any) -> tuple[Array, Array]:
        total = jnp.sum(log_likelihood, axis=1, keepdims=True)  # fresh populations have the same rungs for all data
        shared, probability = separate(key, rung[:, :1], total, *how)
        return jnp.broadcast_to(shared, rung.shape), jnp.broadcast_to(probability, (len(probability), rung.shape[1]))

    with mock.patch.object(rounds, "exchange", exchange):
        yield


def configured(objective: str, data_dir: str, num_updates: int) -> Experiment:
    """The experiment of an arm."""
    tempered = () if objective == "ula" else (
        "posterior.kind=tempered", f"posterior.num_temperatures={NUM_RUNGS}", "posterior.steps_per_round=5",
        f"posterior.objective={objective}",
    )  # fmt: skip
    run = [f"data.dir={data_dir}", f"train.num_steps={num_updates}"]
    run += [f"optimizer.{group}.warmup_steps={num_updates // 80}" for group in ("prior", "decoder")]
    return experiment("svhn:paper_tiny", [*SETTINGS, *run, *tempered])


def evaluations(config: Experiment, objective: str) -> int:
    """Decoder evaluations of one update for each datum: starts, moves, and the loss at its draws."""
    sampler = config.posterior
    assert isinstance(sampler, ChainSampler)
    return sampler.num_rungs * (1 + sampler.num_steps) + (sampler.num_rungs if objective == "thermodynamic" else 1)


def population(run: Run, x: Array, is_joint: bool) -> tuple[dict[str, float], float]:
    """Metrics of tempered populations of the data, and the squared error of decoded draws of the last rung."""
    sampler = kaem.Tempered(kernel=ULA(), num_temperatures=NUM_RUNGS, num_steps=5 * NUM_ROUNDS, step_size=0.02)

    @jax.jit  # a program of this call alone, so that it has these exchanges
    def drawn(key: Array, params: Params, x: Array) -> tuple[dict[str, Array], Array]:
        draws = sampler.draw(key, run.model, params, x)
        return draws.metrics, jnp.mean(jnp.square(run.model.decode(params, draws.z[0]) - x))

    with joint_exchanges() if is_joint else contextlib.nullcontext():
        metrics, error = drawn(jax.random.key(1), run.params, x)
    return {name: float(value) for name, value in metrics.items()}, float(error)


def evaluated(run: Run, dataset: Dataset, extractor: Extractor, exchanges: str) -> dict[str, Any]:
    """The numbers of a trained model."""
    _, numbers = evaluate_samples(run, dataset, extractor)
    x = to_unit_interval(jnp.asarray(dataset.held_out[:NUM_POPULATIONS]))
    metrics, error = population(run, x, is_joint=False)
    if exchanges == "joint":
        metrics, _ = population(run, x, is_joint=True)
    if exchanges != "none":
        numbers |= {name: metrics[name] for name in ("swap_acceptance", "swap_acceptance_min", "round_trips")}
    return numbers | {"squared_error": error} | evaluate_likelihood(run, dataset, NUM_EVALUATED)


def trained(arm: str, given: Namespace, dataset: Dataset, seed: int) -> tuple[Run, dict[str, int]]:
    """The run of an arm, and its cost."""
    objective, exchanges, is_equal = ARMS[arm]
    config = configured(objective, given.data_dir, given.updates)
    each, of_ula = evaluations(config, objective), evaluations(configured("ula", given.data_dir, given.updates), "ula")
    of_tempered = evaluations(configured("posterior", given.data_dir, given.updates), "posterior")
    wanted = given.updates * of_ula / (each if is_equal else of_tempered)
    training = Training(config, dataset, seed, per_call=UPDATES_A_CALL)
    with joint_exchanges() if exchanges == "joint" else contextlib.nullcontext():
        time_updates(training, max(1, round(wanted / UPDATES_A_CALL)))
    run = Run.of_state(config, training.model, training.state, training.num_updates, dataset.form)
    total = training.num_updates * config.data.batch_size * each
    return run, {"num_updates": training.num_updates, "decoder_evaluations": total}


@script(__doc__, data_dir=str, out=pathlib.Path, updates=800, seeds=[0], arms=list(ARMS))
def main(given: Namespace) -> None:
    """Adds one JSON line for each arm and seed that results.jsonl does not have."""
    results, data = Results(given.out), configured("ula", given.data_dir, given.updates).data
    dataset = load_dataset(data)
    extractor = classifier(given.out, data, dataset)
    for seed, arm in itertools.product(given.seeds, given.arms):
        objective, exchanges, _ = ARMS[arm]
        case = {"arm": arm, "objective": objective, "exchanges": exchanges}
        case |= {"seed": seed, "updates_of_ula": given.updates}
        if not results.has(case):
            run, cost = trained(arm, given, dataset, seed)
            results.add("ablation", case, cost | evaluated(run, dataset, extractor, exchanges))
