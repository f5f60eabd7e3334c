"""Tuning: trials on the validation split, one look at the test split, interrupted and resumed."""

import csv
import importlib
import json
import signal

import jax
import numpy as np
import optuna
import pytest
from scipy import stats

from kaem_jax import train
from kaem_jax.cli import tune as command
from kaem_jax.contrib import tuning
from kaem_jax.contrib.search_space import Dimension, check_search, read_dimension
from kaem_jax.contrib.tuning import tune
from kaem_jax.data import Dataset
from kaem_jax.errors import DataError
from kaem_jax.errors import DivergedError, RunError
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import ClusteredConfig
from kaem_jax.runs.experiment import Experiment
from kaem_jax.errors import ConfigError
from kaem_jax.train import Outcome
from kaem_jax.training.log import ProgressReporter
from tests.training.conftest import ROOT
from tests.training.test_loop import tiny_config

VALIDATION = {"data__held_out": "validation", "data__validation_size": 50, "data__num_held_out": 0}
SHORT = {"train__num_steps": 20, "checkpoint__every_steps": 20, "evaluation__every_steps": 10}
SEARCH = (
    Dimension("optimizer.decoder.learning_rate", "log", (1e-6, 1e-2)),
    Dimension("prior.inner", "int", (1, 3)),
)


@pytest.fixture(autouse=True)
def _setting(monkeypatch):
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield


def table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_study_from_an_interrupted_start_to_its_end(tmp_path, monkeypatch):
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    stopped = []

    def interrupt(self, row):
        if row["step"] == 10 and not stopped and (folder / "trials" / "001").exists():
            stopped.append(row)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressReporter, "report", interrupt)
    assert tune(config, SEARCH, folder, 3, "nats") is Outcome.INTERRUPTED
    assert [row["state"] for row in table(folder)] == ["complete"]
    assert tune(config, SEARCH, folder, 3, "nats") is Outcome.FINISHED
    rows = table(folder)
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    # The trial that was interrupted is run again with its own values; the others differ.
    rates = [row["optimizer.decoder.learning_rate"] for row in rows]
    assert rates[1] == rates[2]
    assert len({*rates}) == 3

    # Values are those of the runs: settings, the split, the number.
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["nats"]))
    for row in rows:
        saved = json.loads((folder / "trials" / f"{int(row['trial']):03d}" / "config.json").read_text())["config"]
        assert saved["optimizer"]["decoder"]["learning_rate"] == float(row["optimizer.decoder.learning_rate"])
        assert saved["prior"]["inner"] == int(row["prior.inner"])
        assert saved["data"]["held_out"] == "validation"
    summary = json.loads((folder / "trials" / f"{int(best['trial']):03d}" / "summary.json").read_text())
    assert float(best["nats"]) == pytest.approx(summary["eval/log_likelihood"], rel=1e-5)
    final = json.loads((folder / "best" / "config.json").read_text())
    assert final["config"]["data"]["held_out"] == "test"
    assert final["num_train"] == 1437
    assert final["config"]["prior"]["inner"] == int(best["prior.inner"])
    assert (folder / "importance.png").stat().st_size > 2000
    # A second call has nothing left to do, and other settings are another study.
    assert tune(config, SEARCH, folder, 3, "nats") is Outcome.FINISHED
    assert len(table(folder)) == 4
    with pytest.raises(ConfigError, match=r"study of other settings"):
        tune(config, SEARCH[:1], folder, 3, "nats")


def test_trials_see_the_validation_split_and_the_best_settings_the_test_split(tmp_path, monkeypatch):
    """With runs that only write their numbers: 3 trials of other values, then the best of them on all training data."""
    seen = []

    def written(config, workdir, overwrite=False, watch=None):
        seen.append((workdir.name, config))
        value = -((config.prior.inner - 2) ** 2) - 1e-3 * len(seen)
        folder = RunFolder(workdir)
        folder.root.mkdir(parents=True)
        rows = [{"step": 10, "eval/log_likelihood": 100.0}, {"step": 20, "eval/log_likelihood": value}]
        folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Outcome.FINISHED

    monkeypatch.setattr("kaem_jax.contrib.tuning.train_and_evaluate", written)
    config = tiny_config(**SHORT, **VALIDATION)
    search = (*SEARCH, Dimension("data.batch_size", "int", (8, 31)))
    assert tune(config, search, tmp_path / "study", 3, "nats") is Outcome.FINISHED
    *trials, (name, final) = seen
    assert ([trial for trial, _ in trials], name) == (["000", "001", "002"], "best")
    assert all((trial.data.held_out, trial.data.validation_size) == ("validation", 50) for _, trial in trials)
    assert (final.data.held_out, final.data.validation_size) == ("test", 0)
    scores = [-((trial.prior.inner - 2) ** 2) - 1e-3 * (i + 1) for i, (_, trial) in enumerate(trials)]
    best = trials[scores.index(max(scores))][1]
    assert (final.prior, final.optimizer) == (best.prior, best.optimizer)
    assert final.optimizer != config.optimizer
    assert final.data.batch_size == best.data.batch_size
    np.testing.assert_allclose([float(row["nats"]) for row in table(tmp_path / "study")], scores, rtol=1e-5)


def test_the_seed_decides_what_is_tried_first(tmp_path, monkeypatch):
    first = []
    for seed in (0, 3):
        runs = Written(monkeypatch, "eval/log_likelihood", float)
        tune(tiny_config(**SHORT, **VALIDATION, seed=seed), SEARCH, tmp_path / str(seed), 1, "nats")
        first.append(runs.calls[0][1].optimizer.decoder.learning_rate)
    assert first[0] != first[1]


def test_kinds_can_be_searched(tmp_path, monkeypatch):
    """Settings of another kind have their defaults, and those of the experiment's own kind its values."""
    runs = Written(monkeypatch, "eval/log_likelihood", float)
    config = tiny_config(**SHORT, **VALIDATION)
    search = (Dimension("prior.kind", "choice", ("clustered", "mixture")), SEARCH[0])
    assert tune(config, search, tmp_path / "study", 4, "nats") is Outcome.FINISHED
    found = {trial.prior.kind: trial.prior for _, trial, _ in runs.calls}
    assert set(found) == {"clustered", "mixture"}
    assert found["mixture"] == config.prior
    assert found["clustered"] == ClusteredConfig(outer=config.prior.outer, inner=config.prior.inner)


class Written:
    """Stands for runs: writes what `value` says of a number, and remembers how it was called."""

    def __init__(self, monkeypatch, metric, value):
        self.calls, self.metric, self.value = [], metric, value
        monkeypatch.setattr("kaem_jax.contrib.tuning.train_and_evaluate", self)

    def __call__(self, config, workdir, overwrite=False, watch=None):
        self.calls.append((workdir.name, config, overwrite))
        folder = RunFolder(workdir)
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.config.write_text(json.dumps({"config": config.to_dict(), "data_shape": [8, 8], "num_train": 9}))
        row = {"step": 20} | {self.metric: self.value(len(self.calls))} if self.value(len(self.calls)) else {"step": 20}
        folder.metrics.write_text(json.dumps(row) + "\n")
        return Outcome.FINISHED


FID = {"evaluation__samples_every_steps": 20, "evaluation__sample_metrics": ("fid",)}


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_distances_are_made_small_and_trials_without_one_are_left_out(tmp_path, monkeypatch, capsys, name):
    written = Written(monkeypatch, f"eval/{name}_value", [None, 5.0, None, 3.0, 4.0, 9.0].__getitem__)
    config = tiny_config(**SHORT, **VALIDATION, **(FID | {"evaluation__sample_metrics": (name,)}))
    assert tune(config, SEARCH, tmp_path / "study", 4, name) is Outcome.FINISHED
    assert [(row["state"], row[name]) for row in table(tmp_path / "study")] == [
        ("complete", "5"), ("pruned", ""), ("complete", "3"), ("complete", "4"),
    ]  # fmt: skip
    assert "trial 1: left out (" in capsys.readouterr().err
    best, (_, final, _) = written.calls[2][1], written.calls[-1]
    assert final.optimizer == best.optimizer


@pytest.mark.parametrize(
    "error",
    [
        DivergedError("train/loss is nan at step 3"), MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_trial_that_cannot_be_run_to_its_end_ends_no_study(tmp_path, monkeypatch, error):
    def value(number):
        if number == 2:
            raise error
        return float(number)

    written = Written(monkeypatch, "eval/log_likelihood", value)
    assert tune(tiny_config(**SHORT, **VALIDATION), SEARCH, tmp_path / "study", 3, "nats") is Outcome.FINISHED
    assert [row["state"] for row in table(tmp_path / "study")] == ["complete", "pruned", "complete"]
    assert written.calls[-1][1].optimizer == written.calls[2][1].optimizer


@pytest.mark.parametrize(
    "error", [DataError("a file is gone"), jax.errors.JaxRuntimeError("INTERNAL: a device is gone")]
)
def test_what_would_end_every_trial_ends_the_study(tmp_path, monkeypatch, error):
    def value(number):
        if number == 2:
            raise error
        return float(number)

    Written(monkeypatch, "eval/log_likelihood", value)
    with pytest.raises(type(error), match="is gone"):
        tune(tiny_config(**SHORT, **VALIDATION), SEARCH, tmp_path / "study", 3, "nats")


def test_other_data_are_not_searched(tmp_path, refuses):
    with refuses(ConfigError, "--search data.validation_size", "cannot be compared", "data.batch_size or data.flip"):
        search = (Dimension("data.validation_size", "int", (10, 50)),)
        tune(tiny_config(**SHORT, **VALIDATION), search, tmp_path / "study", 3, "nats")


@pytest.mark.parametrize("name", ["evaluation.num_samples", "checkpoint.every_steps", "seed"])
def test_the_judge_is_not_searched(tmp_path, refuses, name):
    """A bound rises with effort, and seeds are luck."""
    with refuses(ConfigError, f"--search {name}", "judged"):
        tune(tiny_config(**SHORT, **VALIDATION), (Dimension(name, "int", (2, 50)),), tmp_path / "study", 3, "nats")


def rows_after(error, num_trials, folder, monkeypatch):
    """The table of a study whose first two calls end with this error."""

    def value(number):
        if number < 3:
            raise error
        return float(number)

    Written(monkeypatch, "eval/log_likelihood", value)
    config = tiny_config(**SHORT, **VALIDATION)
    for _ in range(2):
        with pytest.raises(error if isinstance(error, type) else type(error)):
            tune(config, SEARCH, folder, num_trials, "nats")
    assert tune(config, SEARCH, folder, num_trials, "nats") is Outcome.FINISHED
    return table(folder)


def test_a_trial_whose_process_dies_is_run_once_more(tmp_path, monkeypatch):
    """Settings that kill it twice, for want of memory, must not do so for ever."""

    class KilledError(BaseException):
        pass

    rows = rows_after(KilledError, 2, tmp_path / "study", monkeypatch)
    assert [row["state"] for row in rows] == ["fail", "fail", "complete", "complete"]
    rates = [row["optimizer.decoder.learning_rate"] for row in rows]
    assert rates[0] == rates[1]
    assert len({*rates}) == 3


def test_a_trial_that_is_interrupted_comes_again_however_often(tmp_path, monkeypatch):
    """Ctrl-C outside the loop of training, as in the last evaluation, says nothing against the settings."""
    rows = rows_after(KeyboardInterrupt, 1, tmp_path / "study", monkeypatch)
    assert [row["state"] for row in rows] == ["fail", "fail", "complete"]
    assert len({row["optimizer.decoder.learning_rate"] for row in rows}) == 1


def test_a_full_disk_ends_a_study_and_loses_no_trial(tmp_path, monkeypatch):
    """What writes checkpoints says it in the words of a full memory, which would leave the trial out."""
    rows = rows_after(
        ValueError("RESOURCE_EXHAUSTED: a write: No space left on device"), 1, tmp_path / "a", monkeypatch
    )
    assert [row["state"] for row in rows] == ["fail", "fail", "complete"]
    assert len({row["optimizer.decoder.learning_rate"] for row in rows}) == 1


def test_a_trial_below_the_median_of_five_others_is_stopped_early(tmp_path, monkeypatch):
    """By its evaluations during training; the one after the last update comes too late to save anything."""
    metric, calls = "eval/log_likelihood", []
    halfway = [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 4.0]

    def watched(config, workdir, overwrite=False, watch=None):
        number = len(calls)
        calls.append(workdir.name)
        folder = RunFolder(workdir)
        folder.root.mkdir(parents=True)
        if watch is not None:
            watch({"step": 5})
            watch({"step": 10, metric: halfway[number]})
            watch({"step": 20, metric: -100.0 - number})
        folder.metrics.write_text(json.dumps({"step": 20, metric: -100.0 - number}) + "\n")
        return Outcome.FINISHED

    monkeypatch.setattr("kaem_jax.contrib.tuning.train_and_evaluate", watched)
    assert tune(tiny_config(**SHORT, **VALIDATION), SEARCH, tmp_path / "study", 7, "nats") is Outcome.FINISHED
    assert [row["state"] for row in table(tmp_path / "study")] == [*["complete"] * 5, "pruned", "complete"]
    assert calls[-1] == "best"


def test_trials_of_different_lengths_are_not_stopped_by_each_other(tmp_path, monkeypatch):
    """Half-way through its schedule a long trial has not yet what a short one has at its end."""
    calls = []

    def watched(config, workdir, overwrite=False, watch=None):
        calls.append(config.train.num_steps)
        folder, row = RunFolder(workdir), {"step": 10, "eval/log_likelihood": -float(len(calls))}
        folder.root.mkdir(parents=True)
        if watch is not None:
            watch(row)
        folder.metrics.write_text(json.dumps(row) + "\n")
        return Outcome.FINISHED

    monkeypatch.setattr("kaem_jax.contrib.tuning.train_and_evaluate", watched)
    search = [Dimension("train.num_steps", "choice", (10, 20))]
    tune(tiny_config(**SHORT, **VALIDATION), search, tmp_path / "study", 8, "nats")
    assert [row["state"] for row in table(tmp_path / "study")] == ["complete"] * 8
    assert set(calls) == {10, 20}


def test_a_study_is_continued_with_its_own_settings_alone(tmp_path, monkeypatch, refuses):
    Written(monkeypatch, "eval/log_likelihood", float)
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    assert tune(config, SEARCH, folder, 1, "nats") is Outcome.FINISHED
    sampled = tiny_config(**SHORT, **VALIDATION, **FID)
    for other, search, objective in (
        (tiny_config(**SHORT, **VALIDATION, seed=3), SEARCH, "nats"),
        (config, SEARCH[:1], "nats"),
        (sampled, SEARCH, "nats"),
    ):
        with refuses(ConfigError, "study of other settings"):
            tune(other, search, folder, 1, objective)
    # Not of other settings: on more devices, and by an earlier version, which had one setting less.
    described = json.loads((folder / "search.json").read_text())
    del described["config"]["optimizer"]["average_decay"], described["data_fingerprint"]
    (folder / "search.json").write_text(json.dumps(described))
    described["config"]["data"] |= {"path": "elsewhere", "dir": "elsewhere"}
    (folder / "search.json").write_text(json.dumps(described))
    moved = {"parallel__data": 2, "data__storage": "host"}
    changed = Config.from_dict(tiny_config(**SHORT, **VALIDATION, **moved).to_dict() | {"name": "renamed"})
    assert tune(changed, SEARCH, folder, 1, "nats") is Outcome.FINISHED
    # But of other data, wherever these lie.
    monkeypatch.setattr(Dataset, "fingerprint", lambda _: 7)
    assert tune(config, SEARCH, folder, 1, "nats") is Outcome.FINISHED  # nobody wrote then of which data it is
    described["data_fingerprint"] = 8
    (folder / "search.json").write_text(json.dumps(described))
    with refuses(ConfigError, "study of other settings or data"):
        tune(config, SEARCH, folder, 1, "nats")
    assert tune(sampled, SEARCH, tmp_path / "other", 1, "nats") is Outcome.FINISHED
    with refuses(ConfigError, "study of other settings"):
        tune(sampled, SEARCH, tmp_path / "other", 1, "fid")


def test_a_setting_may_depend_on_another_that_is_searched_too(tmp_path, monkeypatch):
    Written(monkeypatch, "eval/log_likelihood", float)
    search = (
        Dimension("posterior.ess_threshold", "choice", (0.0, 0.5)),
        Dimension("posterior.resampling", "choice", ("systematic", "residual")),
    )
    assert tune(tiny_config(**SHORT, **VALIDATION), search, tmp_path / "study", 1, "nats") is Outcome.FINISHED
    # Neither both first values nor both last ones can be run, but 4 and 4, and 6 and 3, can.
    search = (
        Dimension("posterior.num_steps", "choice", (4, 6)),
        Dimension("posterior.steps_per_round", "choice", (3, 4)),
    )
    population = {"posterior__kind": "tempered", "posterior__num_steps": 12, "posterior__steps_per_round": 2}
    population["evaluation__posterior_steps"] = 12
    check_search(tiny_config(**SHORT, **VALIDATION, **population), search, "nats")


def test_a_second_search_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    """It would take the trial that the first one is running for a dead one."""
    config, refused = tiny_config(**SHORT, **VALIDATION), []

    def value(number):
        with pytest.raises(RunError, match=r"--out .*study is in use by process") as error:
            tune(config, SEARCH, tmp_path / "study", 9, "nats")
        refused.append(error)
        return float(number)

    Written(monkeypatch, "eval/log_likelihood", value)
    assert tune(config, SEARCH, tmp_path / "study", 2, "nats") is Outcome.FINISHED
    assert refused
    assert [row["state"] for row in table(tmp_path / "study")] == ["complete"] * 2


def test_a_study_is_extended_and_its_final_run_replaced_only_by_other_settings(tmp_path, monkeypatch):
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    written = Written(monkeypatch, "eval/log_likelihood", [None, 1.0, 2.0, 0.0, -5.0, 0.0, 9.0, 0.0].__getitem__)
    finals = []
    for num_trials in (2, 3, 4):  # the second trial is best, then still, then the fourth
        assert tune(config, SEARCH, folder, num_trials, "nats") is Outcome.FINISHED
        name, final, overwrite = written.calls[-1]
        assert name == "best"
        finals.append((final.optimizer, overwrite))
    assert [overwrite for _, overwrite in finals] == [False, False, True]
    assert finals[0][0] == finals[1][0] != finals[2][0]


def test_dimensions(refuses):
    assert read_dimension("a.b=int:1:5") == Dimension("a.b", "int", (1, 5))
    assert read_dimension("a=log:1e-4:0.1") == Dimension("a", "log", (1e-4, 0.1))
    assert read_dimension("a=choice:mala:ula") == Dimension("a", "choice", ("mala", "ula"))
    assert read_dimension("a=choice:true:8") == Dimension("a", "choice", (True, 8))
    for text in ("a", "a=1:2", "a=int:1", "a=int:5:1", "a=log:0:1", "a=float:x:1", "a=int:1:2:3", "a=choice:"):
        with refuses(ConfigError, repr(text), "NAME=int:LOW:HIGH"):
            read_dimension(text)


def test_values_follow_the_law_that_is_asked_for():
    """500 draws: of `log` each decade gets as many, of `float` each unit."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for kind, transform in (("log", np.log), ("float", np.asarray)):
        dimension = Dimension(kind, kind, (1e-6, 1e-2))
        drawn = transform([dimension.suggest(study.ask()) for _ in range(500)])
        low, high = transform([1e-6, 1e-2])
        assert stats.kstest((drawn - low) / (high - low), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("changes", "search", "objective", "parts"),
    [
        ({}, SEARCH, "nats", ["validation split", "data.validation_size"]),
        (VALIDATION, (), "nats", ["--search is missing"]),
        (VALIDATION, (Dimension("prior.outre", "int", (1, 2)),), "nats", ["prior.outre", "no such setting"]),
        (VALIDATION, (Dimension("prior.inner", "int", (0, 2)),), "nats", ["prior.inner=0", "at least 1"]),
        (VALIDATION, (SEARCH[1], Dimension("prior.inner", "choice", (1, 2))), "nats", ["prior.inner is given twice"]),
        (VALIDATION, (Dimension("prior.inner", "choice", (1, 0, 2)),), "nats", ["prior.inner=0", "at least 1"]),
        (
            VALIDATION,
            (Dimension("likelihood.kind", "choice", ("gaussian", "discretized_logistic")),),
            "nats",
            ["likelihood.kind", "nats of different likelihoods"],
        ),
        (
            VALIDATION | {"likelihood__learn_sigma": False},
            (Dimension("likelihood.sigma", "log", (0.1, 0.5)),),
            "nats",
            ["likelihood.sigma", "nats of pixels"],
        ),
        (
            VALIDATION,
            (Dimension("likelihood.learn_sigma", "choice", (True, False)),),
            "nats",
            ["likelihood.learn_sigma", "nats of pixels"],
        ),
        (
            VALIDATION | {"posterior__ess_threshold": 0.0},
            (Dimension("posterior.resampling", "choice", ("systematic", "residual")), SEARCH[0]),
            "nats",
            ["--search posterior.resampling", "posterior.ess_threshold above 0"],
        ),
        (
            VALIDATION
            | {"likelihood__learn_sigma": False, "likelihood__anneal_from": 1.0, "likelihood__anneal_steps": 15},
            (Dimension("train.num_steps", "choice", (20, 10)),),
            "nats",
            ["likelihood.anneal_steps=15", "train.num_steps=10"],
        ),
        (VALIDATION, (Dimension("train.log_every", "choice", (5, 10)),), "nats", ["train.log_every", "how it learns"]),
        (VALIDATION, SEARCH, "fid", ["--objective fid", "samples_every_steps"]),
        (
            VALIDATION | FID | {"evaluation__samples_every_steps": 40},
            SEARCH,
            "fid",
            ["--objective fid", "num_steps=20"],
        ),
        (VALIDATION | FID, SEARCH, "kid", ["'kid' among evaluation.sample_metrics"]),
    ],
)
def test_refusals_before_any_trial(tmp_path, refuses, changes, search, objective, parts):
    with refuses(ConfigError, *parts):
        tune(tiny_config(**SHORT, **changes), search, tmp_path / "study", 2, objective)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(("name", "content"), [("search.json", ""), ("study.db", "no data base")])
def test_damaged_files_of_a_study_are_named(tmp_path, refuses, name, content):
    study = tmp_path / "study"
    study.mkdir()
    (study / name).write_text(content)
    with refuses(ConfigError, f"{study / name} is damaged", "another --out"):
        tune(tiny_config(**SHORT, **VALIDATION), SEARCH, study, 2, "nats")


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
def test_the_command_refuses_in_one_sentence(tmp_path, capsys, monkeypatch):
    code = command.main(["--config", "digits", "--out", str(tmp_path / "s"), "--search", "prior.inner=int:2:4"])
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: tuning needs a validation split")
    assert error.count("\n") == 1
    monkeypatch.setattr("kaem_jax.devices.processes.initialize", lambda: None)  # a launcher has started four
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert command.main(["--config", "digits", "--out", str(tmp_path / "s")]) == 2
    assert "kaem tune is one process, and 4 were started" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
@pytest.mark.parametrize(("outcome", "code"), [(Outcome.FINISHED, 0), (Outcome.INTERRUPTED, 75)])
def test_the_command_passes_on_what_is_asked_and_says_how_it_ended(tmp_path, monkeypatch, outcome, code):
    """After 75 a launcher starts the same command again."""
    asked = []
    monkeypatch.setattr("kaem_jax.devices.compilation_cache.use_compilation_cache", asked.append)
    monkeypatch.setattr("kaem_jax.contrib.tuning.tune", lambda *given: asked.append(given[1:]) or outcome)
    monkeypatch.setattr("kaem_jax.devices.processes.initialize", lambda: asked.append("threads for the devices"))
    flags = ["--trials", "7", "--search", "prior.inner=int:2:4", "--objective", "kid", "--cache", str(tmp_path)]
    config = str(ROOT / "tests" / "training" / "tiny.py")
    assert command.main(["--config", config, "--out", str(tmp_path / "s"), *flags]) == code
    assert asked == [
        str(tmp_path),
        "threads for the devices",
        ([Dimension("prior.inner", "int", (2, 4))], tmp_path / "s", 7, "kid"),
    ]


def test_bars_of_importance_stand_beside_their_settings(tmp_path, monkeypatch):
    drawn = []
    importance = importlib.import_module("optuna.importance")  # loaded at first use, which would undo the change
    monkeypatch.setattr(optuna, "importance", importance)
    monkeypatch.setattr(importance, "get_param_importances", lambda *_, **__: {"a": 0.9, "b": 0.1})
    monkeypatch.setattr("kaem_jax.evaluation.figures.plot_bars", lambda *given: drawn.append(given))
    tuning._draw_importance(tmp_path / "i.png", None, "nats")
    assert drawn[0][1:3] == (["a", "b"], [0.9, 0.1])
