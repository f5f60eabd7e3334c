"""Searches settings of an experiment on a validation split, by optuna; a study can be interrupted and resumed.

A Python function gives the space: it takes an optuna trial and returns settings.

    def space(trial):
        return {"optimizer.prior.learning_rate": trial.suggest_float("rate", 3e-4, 1e-2, log=True)}
"""

import dataclasses
import json
import pathlib
import runpy
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kaem_jax.app.data import load_dataset, write_table
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.log import read_metrics
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.runs.lock import only_run_in
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, DivergedError, causes_of, first_line, is_disk_full, is_out_of_memory
from kaem_jax.files import write_json
from kaem_jax.jax_utils.processes import say
from kaem_jax.settings import apply_overrides, read, to_dict

Space = Callable[[Any], Mapping[str, Any]]

_METRIC = "eval/log_likelihood"  # of metrics.jsonl; trials maximise it
# Settings that change the data or the metric, so that trials could not be compared.
_NOT_COMPARABLE = ("data.", "evaluation.", "seed", "likelihood.kind", "likelihood.levels")
_OF_MINIBATCHES = ("data.batch_size", "data.transpose")


def read_space(path: pathlib.Path) -> Space:
    """The function `space` of a Python file.

    Raises:
      ConfigError: the file cannot be read, or has no such function.
    """
    try:
        return runpy.run_path(str(path))["space"]
    except Exception as error:  # a user's own file may raise anything
        raise ConfigError(f"--space {path} cannot be read: {type(error).__name__}: {first_line(error)}") from None


def tune(config: Experiment, space: Space, folder: pathlib.Path, num_trials: int = 20) -> Outcome:
    """Runs trials until `num_trials` are complete or pruned; then trains the best settings, tested on the test split.

    Each trial is its own run in FOLDER/trials/NUMBER. It is evaluated on the validation split, and stopped early if an
    evaluation is worse than the median of earlier trials at the same step. FOLDER also gets study.log, trials.csv, and
    the final run in best/.

    Args:
      config: the experiment; its `data.validation_size` must be above 0.
      space: maps an optuna trial to settings by name, such as "posterior.num_steps".
      folder: folder of the study; a study in it is continued.
      num_trials: number of trials of the whole study, including those of earlier calls.

    Raises:
      ConfigError: the settings cannot be searched, or the folder holds a study of another experiment.
      RunError: another search runs in this folder.
    """
    import optuna  # most of a second: only where it is used
    from optuna.storages.journal import JournalFileBackend

    if config.data.held_out != "validation":
        raise ConfigError(
            "tuning needs a validation split: give --config.data.held_out=validation and "
            "--config.data.validation_size=N; the test split is looked at once, at the end"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with only_run_in(folder, flag="--out"):
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
        _check_same(folder / "search.json", config)
        study = optuna.create_study(
            storage=storage, study_name="kaem", direction="maximize", load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )  # fmt: skip
        # A resumed study must not draw its first values again.
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials), multivariate=True)
        states = optuna.trial.TrialState
        for dead in study.get_trials(states=(states.RUNNING,)):  # its process died
            study.tell(dead.number, state=states.FAIL)
        while len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))) < num_trials:
            trial = study.ask()
            if _run_trial(study, trial, config, space, folder) is Outcome.INTERRUPTED:
                return Outcome.INTERRUPTED
            jax.clear_caches()  # each trial has programs of its own, and the maps of memory of a process are limited
            _write_table(folder / "trials.csv", study.get_trials(deepcopy=False))
        if not study.get_trials(deepcopy=False, states=(states.COMPLETE,)):
            raise ConfigError(f"none of {num_trials} trials in {folder} came to its end; search other values")
        best = study.best_trial
        settings = best.user_attrs["settings"]
        say(f"best: trial {best.number}, {best.value:.4f} nats with {settings}")
        say("now once with the whole training split, judged on the test split")
        final = _changed(config, settings)
        data = dataclasses.replace(final.data, held_out="test", validation_size=0)
        return _train_best(dataclasses.replace(final, data=data), RunFolder(folder / "best"))


def _train_best(config: Experiment, folder: RunFolder) -> Outcome:
    """Trains the best settings; replaces a run of settings that were the best of fewer trials."""
    bound = bind(config, load_dataset(config.data, lazy=True))
    is_other = folder.config.exists() and folder.saved_config() != bound
    return train_and_evaluate(config, folder.root, overwrite=is_other)


def _run_trial(study: Any, trial: Any, config: Experiment, space: Space, folder: pathlib.Path) -> Outcome | None:
    """Trains with one set of settings, and tells the study the result."""
    import optuna

    states = optuna.trial.TrialState
    run = folder / "trials" / f"{trial.number:03d}"

    def watch(row: Mapping[str, Any]) -> None:
        if _METRIC in row and row["step"] < config.num_steps:
            trial.report(row[_METRIC], row["step"])
            if trial.should_prune():
                raise optuna.TrialPruned

    state, value, ended = states.COMPLETE, None, "stopped early"
    try:
        settings = dict(space(trial))
        _check_names(settings)
        trial.set_user_attr("settings", settings)
        outcome = train_and_evaluate(_changed(config, settings), run, overwrite=True, watch=watch)
        if outcome is Outcome.INTERRUPTED:
            study.tell(trial, state=states.FAIL)
            return outcome
        value = next(row[_METRIC] for row in reversed(read_metrics(RunFolder(run).metrics)) if _METRIC in row)
    except optuna.TrialPruned:
        state = states.PRUNED
    except Exception as error:
        is_of_the_trial = isinstance(error, ConfigError | DivergedError) or is_out_of_memory(error)
        if any(map(is_disk_full, causes_of(error))) or not is_of_the_trial or trial.number == 0:
            study.tell(trial, state=states.FAIL)
            raise  # it would end every trial
        state, ended = states.PRUNED, f"left out ({first_line(error)})"
    study.tell(trial, value, state=state)
    say(f"trial {trial.number}: {ended if value is None else f'{value:.4f}'} with {trial.params}")
    return None


def _check_names(settings: Mapping[str, Any]) -> None:
    """Refuses settings that would make the numbers of trials incomparable."""
    for name in settings:
        if name.startswith(_NOT_COMPARABLE) and name not in _OF_MINIBATCHES:
            raise ConfigError(f"--space gives {name}: numbers of trials could not be compared; leave it out")


def _changed(config: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """The experiment with other values, by name."""
    arguments = [f"--config.{name}={value}" for name, value in settings.items()]
    return read(Experiment, apply_overrides(Experiment, to_dict(config, changed=True), arguments))


def _check_same(path: pathlib.Path, config: Experiment) -> None:
    """Refuses to continue a study of another experiment: its trials could not be compared."""
    fingerprint = load_dataset(config.data, lazy=True).fingerprint()
    described = {"config": to_dict(config), "data_fingerprint": fingerprint}
    if not path.exists():
        write_json(path, described)
    elif json.loads(path.read_text()) != json.loads(json.dumps(described)):
        raise ConfigError(f"{path} describes a study of other settings or data; give another --out")


def _write_table(path: pathlib.Path, trials: list[Any]) -> None:
    names = sorted({name for trial in trials for name in trial.user_attrs.get("settings", {})})
    table = {
        "trial": [trial.number for trial in trials],
        "state": [trial.state.name.lower() for trial in trials],
        "nats": [None if trial.value is None else f"{trial.value:.6g}" for trial in trials],
    }
    write_table(path, table | {name: [t.user_attrs.get("settings", {}).get(name) for t in trials] for name in names})
