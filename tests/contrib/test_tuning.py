"""Tuning: trials on the validation split, one look at the test split, interrupted and resumed."""

import csv
import json
import signal

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax import train
from kaem_jax.cli import tune as command
from kaem_jax.contrib.tune import read_space, tune
from kaem_jax.data import Dataset
from kaem_jax.errors import ConfigError, DataError, DivergedError, RunError
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import to_dict
from kaem_jax.train import Outcome
from kaem_jax.training.log import ProgressReporter
from tests.training.conftest import ROOT
from tests.training.tiny import tiny_config

VALIDATION = {"data__held_out": "validation", "data__validation_size": 50, "data__num_held_out": 0}
SHORT = {"train__num_steps": 20, "checkpoint__every_steps": 20, "evaluation__every_steps": 10}
FID = {"evaluation__samples_every_steps": 20, "evaluation__sample_metrics": ("fid",)}
RATE, COMPONENTS = "optimizer.decoder.learning_rate", "prior.num_components"


def space(trial):
    return {
        RATE: trial.suggest_float("rate", 1e-6, 1e-2, log=True),
        COMPONENTS: trial.suggest_int("components", 1, 3),
    }


@pytest.fixture(autouse=True)
def _setting(monkeypatch):
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield


def table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def states(folder):
    return [row["state"] for row in table(folder)]


@pytest.mark.slow
def test_a_study_from_an_interrupted_start_to_its_end(tmp_path, monkeypatch):
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    stopped, plain = [], ProgressReporter.report

    def interrupt(self, row):
        plain(self, row)
        if row["step"] == 10 and not stopped and (folder / "trials" / "001").exists():
            stopped.append(row)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressReporter, "report", interrupt)
    assert tune(config, space, folder, 3, "nats") is Outcome.INTERRUPTED
    assert states(folder) == ["complete"]
    assert tune(config, space, folder, 3, "nats") is Outcome.FINISHED
    rows = table(folder)
    assert states(folder) == ["complete", "fail", "complete", "complete"]
    assert len({row[RATE] for row in rows}) == 4  # a resumed study does not draw its first values again

    # Values are those of the runs: settings, the split, the number.
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["nats"]))
    for row in rows:
        saved = json.loads((folder / "trials" / f"{int(row['trial']):03d}" / "config.json").read_text())["config"]
        assert saved["optimizer"]["decoder"]["learning_rate"] == float(row[RATE])
        assert saved["prior"]["num_components"] == int(row[COMPONENTS])
        assert saved["data"]["held_out"] == "validation"
    summary = json.loads((folder / "trials" / f"{int(best['trial']):03d}" / "summary.json").read_text())
    assert float(best["nats"]) == pytest.approx(summary["eval/log_likelihood"], rel=1e-5)
    final = json.loads((folder / "best" / "config.json").read_text())
    assert final["config"]["data"]["held_out"] == "test"
    assert final["num_train"] == 1437
    assert final["config"]["prior"]["num_components"] == int(best[COMPONENTS])
    # A second call has nothing left to do.
    assert tune(config, space, folder, 3, "nats") is Outcome.FINISHED
    assert len(table(folder)) == 4


class Written:
    """Stands for runs: writes what `value` says of a call's number, and remembers how it was called."""

    def __init__(self, monkeypatch, value=float, metric="eval/log_likelihood"):
        self.calls, self.metric, self.value = [], metric, value
        monkeypatch.setattr("kaem_jax.contrib.tune.train_and_evaluate", self)

    def __call__(self, config, workdir, overwrite=False, watch=None):
        self.calls.append((workdir.name, config, overwrite))
        folder, value = RunFolder(workdir), self.value(len(self.calls))
        folder.root.mkdir(parents=True, exist_ok=True)
        described = {"config": to_dict(config), "data_shape": [8, 8], "num_train": 9, "data_fingerprint": 0, "form": {}}
        folder.config.write_text(json.dumps(described))
        row = {"step": 20} if value is None else {"step": 20, self.metric: value}
        folder.metrics.write_text(json.dumps({"step": 10, self.metric: 100.0}) + "\n" + json.dumps(row) + "\n")
        return Outcome.FINISHED


def test_trials_see_the_validation_split_and_the_best_settings_the_test_split(tmp_path, monkeypatch):
    written = Written(monkeypatch, [None, 1.0, 3.0, 2.0, 0.0].__getitem__)
    config = tiny_config(**SHORT, **VALIDATION)

    def with_batches(trial):
        return space(trial) | {"data.batch_size": trial.suggest_int("batch", 8, 31)}

    assert tune(config, with_batches, tmp_path / "study", 3, "nats") is Outcome.FINISHED
    *trials, (name, final, _) = written.calls
    assert ([trial for trial, *_ in trials], name) == (["000", "001", "002"], "best")
    assert all((trial.data.held_out, trial.data.validation_size) == ("validation", 50) for _, trial, _ in trials)
    assert (final.data.held_out, final.data.validation_size) == ("test", 0)
    best = trials[1][1]
    assert (final.prior, final.optimizer, final.data.batch_size) == (best.prior, best.optimizer, best.data.batch_size)
    assert final.optimizer != config.optimizer
    np.testing.assert_allclose([float(row["nats"]) for row in table(tmp_path / "study")], [1, 3, 2])


def test_kinds_can_be_searched(tmp_path, monkeypatch):
    """Settings of another kind have their defaults, those of the experiment's own its values; names may depend."""
    written = Written(monkeypatch)

    def of_kinds(trial):
        kind = trial.suggest_categorical("kind", ["clustered", "mixture"])
        own = {} if kind == "mixture" else {"prior.num_clusters": trial.suggest_int("clusters", 5, 6)}
        return {"prior.kind": kind, "optimizer.prior.learning_rate": trial.suggest_float("rate", 1e-4, 1e-3)} | own

    config = tiny_config(**SHORT, **VALIDATION)
    assert tune(config, of_kinds, tmp_path / "study", 4, "nats") is Outcome.FINISHED
    found = {type(trial.prior).__name__: trial.prior for _, trial, _ in written.calls}
    assert found["MixturePrior"] == config.prior
    clusters = found["ClusteredPrior"].num_clusters
    assert found["ClusteredPrior"] == kaem.ClusteredPrior(num_latents=2, num_clusters=clusters)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_distances_are_made_small(tmp_path, monkeypatch, name):
    written = Written(monkeypatch, [None, 5.0, 3.0, 4.0, 9.0].__getitem__, f"eval/{name}_value")
    config = tiny_config(**SHORT, **VALIDATION, **(FID | {"evaluation__sample_metrics": (name,)}))
    assert tune(config, space, tmp_path / "study", 3, name) is Outcome.FINISHED
    assert [row[name] for row in table(tmp_path / "study")] == ["5", "3", "4"]
    assert written.calls[-1][1].optimizer == written.calls[1][1].optimizer


@pytest.mark.parametrize(
    "error",
    [
        DivergedError("train/loss is nan at step 3"), ConfigError("prior.grid_size=1"), MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_trial_that_cannot_be_run_to_its_end_ends_no_study(tmp_path, monkeypatch, capsys, error):
    written = Written(monkeypatch, failing(error))
    assert tune(tiny_config(**SHORT, **VALIDATION), space, tmp_path / "study", 3, "nats") is Outcome.FINISHED
    assert states(tmp_path / "study") == ["complete", "pruned", "complete"]
    assert "trial 1: left out (" in capsys.readouterr().err
    assert written.calls[-1][1].optimizer == written.calls[2][1].optimizer


def failing(error, call=2):
    """The value of a run, but that this call raises."""

    def value(number):
        if number == call:
            raise error
        return float(number)

    return value


class KilledError(BaseException):
    """As a process ends that is killed."""


@pytest.mark.parametrize(
    "error",
    [
        DataError("a file is gone"), jax.errors.JaxRuntimeError("INTERNAL: a device is gone"), KilledError(),
        ValueError("RESOURCE_EXHAUSTED: a write: No space left on device"),
    ],
    ids=["data", "device", "killed", "disk"],
)  # fmt: skip
def test_what_would_end_every_trial_ends_the_study_which_can_be_continued(tmp_path, monkeypatch, error):
    """A writer of checkpoints says of a full disk what others say of a full memory, which leaves a trial out."""
    Written(monkeypatch, failing(error))
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    with pytest.raises(type(error)):
        tune(config, space, folder, 3, "nats")
    assert tune(config, space, folder, 3, "nats") is Outcome.FINISHED
    assert states(folder) == ["complete", "fail", "complete", "complete"]


def test_a_space_that_fails_at_once_ends_the_study(tmp_path, monkeypatch, refuses):
    Written(monkeypatch)
    for given, parts in (
        ({"prior.num_latent": 3}, ["prior.num_latent", "did you mean 'num_latents'?"]),
        ({COMPONENTS: 0}, ["prior.num_components=0", "at least 1"]),
        ({"data.validation_size": 7}, ["data.validation_size", "could not be compared"]),
        ({"evaluation.estimator.num_samples": 7}, ["evaluation.estimator.num_samples", "could not be compared"]),
        ({"likelihood.kind": "bernoulli"}, ["likelihood.kind", "could not be compared"]),
    ):
        with refuses(ConfigError, *parts):
            tune(tiny_config(**SHORT, **VALIDATION), lambda _, given=given: given, tmp_path / next(iter(given)), 2)


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

    monkeypatch.setattr("kaem_jax.contrib.tune.train_and_evaluate", watched)
    assert tune(tiny_config(**SHORT, **VALIDATION), space, tmp_path / "study", 7, "nats") is Outcome.FINISHED
    assert states(tmp_path / "study") == [*["complete"] * 5, "pruned", "complete"]
    assert calls[-1] == "best"


def test_a_study_is_continued_with_its_own_settings_and_data_alone(tmp_path, monkeypatch, refuses):
    Written(monkeypatch)
    config, folder = tiny_config(**SHORT, **VALIDATION, **FID), tmp_path / "study"
    assert tune(config, space, folder, 1, "nats") is Outcome.FINISHED
    assert tune(config, space, folder, 1, "nats") is Outcome.FINISHED
    for other, objective in ((tiny_config(**SHORT, **VALIDATION, **FID, seed=3), "nats"), (config, "fid")):
        with refuses(ConfigError, "study of other settings or data"):
            tune(other, space, folder, 1, objective)
    monkeypatch.setattr(Dataset, "fingerprint", lambda _: 7)
    with refuses(ConfigError, "study of other settings or data"):
        tune(config, space, folder, 1, "nats")


def test_a_second_search_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    """It would take the trial that the first one is running for a dead one."""
    config, refused = tiny_config(**SHORT, **VALIDATION), []

    def value(number):
        with pytest.raises(RunError, match=r"--out .*study is in use by process") as error:
            tune(config, space, tmp_path / "study", 9, "nats")
        refused.append(error)
        return float(number)

    Written(monkeypatch, value)
    assert tune(config, space, tmp_path / "study", 2, "nats") is Outcome.FINISHED
    assert refused
    assert states(tmp_path / "study") == ["complete"] * 2


@pytest.mark.parametrize("name", [RATE, "decoder.hidden"])
def test_a_study_is_extended_and_its_final_run_replaced_only_by_other_settings(tmp_path, monkeypatch, name):
    config, folder = tiny_config(**SHORT, **VALIDATION), tmp_path / "study"
    written = Written(monkeypatch, [None, 1.0, 2.0, 0.0, -5.0, 0.0, 9.0, 0.0].__getitem__)

    def one(trial):
        rate = trial.suggest_float("rate", 1e-6, 1e-2)
        return {name: rate if name == RATE else (trial.number + 1,)}

    finals = []
    for num_trials in (2, 3, 4):  # the second trial is best, then still, then the fourth
        assert tune(config, one, folder, num_trials, "nats") is Outcome.FINISHED
        run, final, overwrite = written.calls[-1]
        assert run == "best"
        finals.append(((final.optimizer, final.decoder), overwrite))
    assert [overwrite for _, overwrite in finals] == [False, False, True]
    assert finals[0][0] == finals[1][0] != finals[2][0]


@pytest.mark.parametrize(
    ("changes", "objective", "parts"),
    [
        ({}, "nats", ["validation split", "data.validation_size"]),
        (VALIDATION, "fid", ["--objective fid", "samples_every_steps"]),
        (VALIDATION | FID, "kid", ["'kid' among evaluation.sample_metrics"]),
    ],
)
def test_refusals_before_any_trial(tmp_path, refuses, changes, objective, parts):
    with refuses(ConfigError, *parts):
        tune(tiny_config(**SHORT, **changes), space, tmp_path / "study", 2, objective)
    assert not (tmp_path / "study").exists()


def test_a_space_is_a_function_in_a_file(tmp_path, refuses):
    path = tmp_path / "space.py"
    path.write_text("def space(trial):\n    return {'seed': 3}\n")
    assert read_space(path)(None) == {"seed": 3}
    for content, part in (("x = 1\n", "space"), ("import nosuch\n", "nosuch"), ("def space(:\n", "SyntaxError")):
        path.write_text(content)
        with refuses(ConfigError, f"--space {path} cannot be read", part):
            read_space(path)
    with refuses(ConfigError, "cannot be read", "none.py"):
        read_space(tmp_path / "none.py")


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.FINISHED, 0), (Outcome.INTERRUPTED, 75)])
def test_the_command_passes_on_what_is_asked_and_says_how_it_ended(tmp_path, monkeypatch, capsys, outcome, code):
    """After 75 a launcher starts the same command again."""
    (tmp_path / "space.py").write_text("def space(trial):\n    return {'seed': 3}\n")
    asked = []
    monkeypatch.setattr("kaem_jax.devices.compilation_cache.use_compilation_cache", asked.append)
    monkeypatch.setattr("kaem_jax.contrib.tune.tune", lambda *given: asked.append(given) or outcome)
    config = str(ROOT / "tests" / "training" / "tiny.py")
    flags = ["--config", config, "--space", str(tmp_path / "space.py"), "--out", str(tmp_path / "s")]
    flags += ["--trials", "7", "--objective", "kid", "--cache", str(tmp_path), "--config.seed=5"]
    assert command.main(flags) == code
    cache, (experiment, found, *rest) = asked
    assert (cache, experiment.seed, found(None), rest) == (str(tmp_path), 5, {"seed": 3}, [tmp_path / "s", 7, "kid"])
    assert ("continues the study" in capsys.readouterr().err) == (code == 75)
