"""Searches settings of an experiment by optuna: each trial is a run, evaluated on a validation split.

    pip install optuna
    python examples/tune.py --config digits --out studies/digits --trials 20 \
      --config.data.held_out=validation --config.data.validation_size=360

Edit `space`. A trial stops early if it is below the median of earlier trials at the same step. The same command adds
trials to the study. Train the best settings on the whole training split afterwards, and test them once.
"""

import argparse
import json
import pathlib

import jax
import optuna

from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.errors import DivergedError

METRIC = "eval/log_likelihood"


def space(trial):
    """Settings by name; those of the data and of the evaluation must be equal in all trials."""
    return {
        "optimizer.prior.learning_rate": trial.suggest_float("rate", 3e-4, 1e-2, log=True),
        "prior.num_clusters": trial.suggest_int("clusters", 4, 20),
    }


def main():
    """The command line."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    given, overrides = parser.parse_known_args()

    def nats(trial):
        settings = [f"--config.{name}={value}" for name, value in space(trial).items()]
        config = read_experiment(given.config, [*overrides, *settings])

        def watch(row):
            if METRIC in row:
                trial.report(row[METRIC], row["step"])
                if trial.should_prune():
                    raise optuna.TrialPruned

        run = given.out / f"{trial.number:03d}"
        if train_and_evaluate(config, run, overwrite=True, watch=watch) is Outcome.INTERRUPTED:
            raise KeyboardInterrupt
        jax.clear_caches()  # each trial has its own programs
        return json.loads((run / "summary.json").read_text())[METRIC]

    given.out.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{given.out / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="kaem", direction="maximize", load_if_exists=True)
    study.optimize(nats, n_trials=given.trials, catch=DivergedError)
    print(f"best: trial {study.best_trial.number}, {study.best_value:.4f} nats with {study.best_params}")


if __name__ == "__main__":
    main()
