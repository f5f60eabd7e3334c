"""Searches settings of an experiment on a validation split, by optuna; a study can be interrupted and resumed."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from kaem_jax.contrib.search_space import Dimension, changed, check_search
from kaem_jax.data import load_dataset, write_table
from kaem_jax.devices.processes import say
from kaem_jax.errors import DivergedError, causes_of, first_line, is_disk_full, is_out_of_memory
from kaem_jax.files import write_json
from kaem_jax.runs.lock import only_run_in
from kaem_jax.runs.run_folder import Workdir
from kaem_jax.settings import Config, ConfigError, default_dict
from kaem_jax.settings.saved import flatten
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.log import MetricsFile

__all__ = ["OBJECTIVES", "tune"]

# What is made as good as possible: the name in metrics.jsonl, and the direction.
OBJECTIVES: dict[str, tuple[str, Literal["maximize", "minimize"]]] = {
    "nats": ("eval/log_likelihood", "maximize"),
    "fid": ("eval/fid_value", "minimize"),
    "kid": ("eval/kid_value", "minimize"),
}
_PLACES = ("name", "parallel.", "data.dir", "data.path", "data.storage")
_AGAIN = "again"  # of a trial whose process died the first time


def tune(
    config: Config, dimensions: Sequence[Dimension], folder: pathlib.Path, num_trials: int, objective: str
) -> Outcome:
    """Runs trials until `num_trials` are complete or pruned; then trains the best settings, judged on the test split.

    Every trial is a run of its own in FOLDER/trials/NUMBER, judged on the validation split and stopped early where its
    evaluations lie below the median of earlier trials at the same step, unless `train.num_steps` is searched. FOLDER
    also gets study.db, trials.csv, importance.png, and the final run in best/.

    Args:
      config: the experiment; its `data.validation_size` must be above 0.
      dimensions: what is searched.
      folder: of the study. What is in it is continued.
      num_trials: of the whole study, those of earlier calls included.
      objective: a key of `OBJECTIVES`.

    Raises:
      ConfigError: the settings cannot be searched, or the folder holds a study of other ones.
      RunError: another search runs in this folder.
    """
    import optuna  # most of a second: only where it is used

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_search(config, dimensions, objective)
    with only_run_in(folder, flag="--out"):  # a second search would take the trial of the first for a dead one
        _check_same(folder / "search.json", config, dimensions, objective)
        file = folder / "study.db"
        _check_database(file)
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        try:
            return _search(config, dimensions, folder, num_trials, objective, storage)
        finally:  # optuna leaves the data base open
            storage.remove_session()
            storage.engine.dispose()


def _search(
    config: Config, dimensions: Sequence[Dimension], folder: pathlib.Path, num_trials: int, objective: str, storage: Any
) -> Outcome:
    """Trials, then the best settings; see `tune`."""
    import optuna

    _, direction = OBJECTIVES[objective]
    pruner: optuna.pruners.BasePruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    if any(dimension.name == "train.num_steps" for dimension in dimensions):
        pruner = optuna.pruners.NopPruner()  # at one step, a longer trial has larger learning rates than a shorter one
    study = optuna.create_study(
        storage=storage,
        study_name="kaem",
        direction=direction,
        pruner=pruner,
        load_if_exists=True,
    )
    # A resumed study must not draw its first values again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials), multivariate=True)
    states = optuna.trial.TrialState
    _revive(study)
    while len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))) < num_trials:
        trial = study.ask()
        values = {dimension.name: dimension.suggest(trial) for dimension in dimensions}
        if not _run_trial(study, trial, config, values, folder, objective):
            return Outcome.INTERRUPTED
        jax.clear_caches()  # each trial has programs of its own, and the maps of memory of a process are limited
        _write_table(folder / "trials.csv", study.get_trials(deepcopy=False), dimensions, objective)
    if not study.get_trials(deepcopy=False, states=(states.COMPLETE,)):
        raise ConfigError(f"none of {num_trials} trials in {folder} came to its end; search other values")
    _draw_importance(folder / "importance.png", study, objective)
    return _train_best(study, config, folder, objective)


def _revive(study: Any) -> None:
    """Trials whose process died are run again, once."""
    from optuna.trial import TrialState

    for dead in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(dead.number, state=TrialState.FAIL)
        if _AGAIN in dead.user_attrs:  # for want of memory, perhaps
            say(f"trial {dead.number}: left out, its process died twice")
        else:
            study.enqueue_trial(dead.params, user_attrs={_AGAIN: True})


def _run_trial(
    study: Any, trial: Any, config: Config, values: Mapping[str, Any], folder: pathlib.Path, objective: str
) -> bool:
    """Trains with `values` and tells the study what came of it. False: interrupted, and to be run again."""
    import optuna

    metric, _ = OBJECTIVES[objective]
    states = optuna.trial.TrialState

    def watch(row: Mapping[str, Any]) -> None:
        if metric in row and row["step"] < config.train.num_steps:
            trial.report(row[metric], row["step"])
            if trial.should_prune():
                raise optuna.TrialPruned

    def again() -> None:
        study.tell(trial, state=states.FAIL)
        study.enqueue_trial(values, user_attrs=trial.user_attrs)

    state, value, ended = states.COMPLETE, None, "stopped early"
    try:
        run = folder / "trials" / f"{trial.number:03d}"
        if train_and_evaluate(changed(config, values), run, overwrite=True, watch=watch) is Outcome.INTERRUPTED:
            again()
            return False
        value = _last(run, metric)
    except optuna.TrialPruned:
        state = states.PRUNED
    except KeyboardInterrupt:  # while data load, or in the last evaluation: its process did not die of it
        again()
        raise
    except Exception as error:
        if any(map(is_disk_full, causes_of(error))):
            with contextlib.suppress(Exception):  # the data base may be on the same disk
                again()
            raise
        if not (isinstance(error, ConfigError | DivergedError) or is_out_of_memory(error)):
            raise  # it would end every trial
        state, ended = states.PRUNED, f"left out ({first_line(error)})"
    study.tell(trial, value, state=state)
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    say(f"trial {trial.number}: {ended if value is None else f'{objective} {value:.4f}'} with {shown}")
    return True


def _train_best(study: Any, config: Config, folder: pathlib.Path, objective: str) -> Outcome:
    """The best settings once more, with the whole training split, judged on the test split."""
    best = changed(config, study.best_params)
    best = dataclasses.replace(best, data=dataclasses.replace(best.data, held_out="test", validation_size=0))
    say(f"best: trial {study.best_trial.number}, {objective} {study.best_value:.4f} with {study.best_params}")
    final = Workdir(folder / "best")
    is_other = False
    if final.config.exists():
        settings = flatten(final.read_config()["config"])
        is_other = any(settings.get(name) != value for name, value in study.best_params.items())
    if is_other:
        say(f"{final.root} holds a run of the settings that were best before these trials: it is replaced")
    say("now once with the whole training split, judged on the test split")
    return train_and_evaluate(best, final.root, overwrite=is_other)


def _last(run: pathlib.Path, metric: str) -> float:
    """The last value of a metric.

    Raises:
      ConfigError: the run never computed it.
    """
    found = [row[metric] for row in MetricsFile.read(Workdir(run).metrics) if metric in row]
    if not found:
        raise ConfigError(f"{run} has no {metric}: the distance of its samples could not be computed")
    return found[-1]


def _check_database(path: pathlib.Path) -> None:
    """Refuses a file that is no data base; optuna would leave it open, and raise what SQLAlchemy raises."""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(16)
        if head not in (b"", b"SQLite format 3\0"):
            raise ConfigError(f"{path} is damaged: it is no SQLite data base; give another --out")


def _check_same(path: pathlib.Path, config: Config, dimensions: Sequence[Dimension], objective: str) -> None:
    """Refuses to continue a study of other settings: its trials could not be compared."""
    described = {
        "config": config.to_dict(),
        "search": [dataclasses.asdict(dimension) for dimension in dimensions],
        "objective": objective,
        "data_fingerprint": load_dataset(config.data, lazy=True).fingerprint(),
    }
    described = json.loads(json.dumps(described))
    # Where the data lie and what the work is shared by is of no account, nor settings that this version has added.
    defaults = json.loads(json.dumps(flatten(default_dict())))

    def compared(of: dict[str, Any]) -> dict[str, Any]:
        settings = defaults | flatten(of["config"])
        return of | {"config": {name: value for name, value in settings.items() if not name.startswith(_PLACES)}}

    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{path} is damaged ({first_line(error)}); give another --out") from None
        try:
            found.setdefault("data_fingerprint", described["data_fingerprint"])  # an earlier version did not know it
            is_same = compared(found) == compared(described)
        except (AttributeError, KeyError, TypeError):
            is_same = False
        if not is_same:
            raise ConfigError(f"{path} describes a study of other settings or data; give another --out")
        return
    write_json(path, described)


def _write_table(path: pathlib.Path, trials: Sequence[Any], dimensions: Sequence[Dimension], objective: str) -> None:
    table = {
        "trial": [trial.number for trial in trials],
        "state": [trial.state.name.lower() for trial in trials],
        objective: [None if trial.value is None else f"{trial.value:.6g}" for trial in trials],
    }
    settings = {dimension.name: [trial.params.get(dimension.name) for trial in trials] for dimension in dimensions}
    write_table(path, table | settings)


def _draw_importance(path: pathlib.Path, study: Any, objective: str) -> None:
    """Bars of each setting's share in the variance of the objective (fANOVA, over a forest of its own seed)."""
    import optuna

    from kaem_jax.evaluation import figures

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError) as error:  # fewer than two finished trials, or all alike
        say(f"no picture of importances: {error}")
        return
    figures.plot_bars(path, list(shares), list(shares.values()), f"share of the variance of {objective} over trials")
