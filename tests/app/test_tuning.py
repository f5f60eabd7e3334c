"""Tuning: trials on the validation split, one look at the test split, interrupted and resumed."""

import csv
import json
import signal

import jax
import pytest

import kaem_jax as kaem
from kaem_jax.app.cli import tune as command
from kaem_jax.app.data import Dataset
from kaem_jax.app.evaluation import periodic
from kaem_jax.app.loop import Outcome
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.app.tune import read_space, tune
from kaem_jax.errors import ConfigError, DataError, DivergedError, RunError
from kaem_jax.settings import to_dict
from kaem_jax.training.progress import ProgressReporter
from tests.app.conftest import ROOT
from tests.app.tiny import tiny_config

SHORT = {"train__num_steps": 20, "checkpoint__every_steps": 20, "evaluation__every_steps": 10}
VALIDATION = SHORT | {"data__held_out": "validation", "data__validation_size": 50, "data__num_held_out": 0}
RATE, COMPONENTS, LIKELIHOOD = "optimizer.decoder.learning_rate", "prior.num_components", "eval/log_likelihood"


def space(trial):
    return {
        RATE: trial.suggest_float("rate", 1e-6, 1e-2, log=True),
        COMPONENTS: trial.suggest_int("components", 1, 3),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of a study, whose runs draw nothing."""
    for name in ("draw_samples", "draw_held_out"):
        monkeypatch.setattr(periodic, name, lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield tmp_path / "study"


def table(folder, name="state"):
    """A column of the trials."""
    with (folder / "trials.csv").open() as file:
        return [row[name] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_study_of_real_runs_has_their_numbers_and_can_be_interrupted(folder, monkeypatch):
    config, plain = tiny_config(**VALIDATION), ProgressReporter.report

    def interrupt(self, row):
        plain(self, row)
        if row["step"] == 10 and (folder / "trials" / "001").exists() and not (folder / "trials" / "002").exists():
            signal.raise_signal(signal.SIGTERM)

    def saved(name, file="config.json"):
        return json.loads((folder / name / file).read_text())

    monkeypatch.setattr(ProgressReporter, "report", interrupt)
    assert tune(config, space, folder, 2) is Outcome.INTERRUPTED
    assert tune(config, space, folder, 2) is Outcome.FINISHED
    assert table(folder) == ["complete", "fail", "complete"]
    for i in (0, 2):
        summary, trial = saved(f"trials/{i:03d}", "summary.json"), saved(f"trials/{i:03d}")["config"]
        assert float(table(folder, "nats")[i]) == pytest.approx(summary[LIKELIHOOD], rel=1e-5)
        assert trial["optimizer"]["decoder"]["learning_rate"] == float(table(folder, RATE)[i])
    assert (saved("best")["config"]["data"]["held_out"], saved("best")["num_train"]) == ("test", 1437)


@pytest.fixture
def written(monkeypatch):
    """Stands for runs, by what they leave: `written(value)` writes value(number of a call), and says what was called.

    A value may raise, be an outcome, or be a list with one for each evaluation, the last after the last update.
    """
    calls = []

    def install(value=float):
        def run(config, workdir, overwrite=False, watch=None):
            calls.append((workdir.name, config, overwrite))
            found = value(len(calls))
            if isinstance(found, Outcome):
                return found
            values = found if isinstance(found, list) else [found]
            rows = [{"step": 10 * i, LIKELIHOOD: one} for i, one in enumerate(values, 3 - len(values))]
            if watch is not None:
                watch({"step": 5})
                for row in rows:
                    watch(row)
            run_folder = RunFolder(workdir)
            run_folder.root.mkdir(parents=True, exist_ok=True)
            described = {"data_shape": [8, 8], "num_train": 9, "data_fingerprint": 0, "form": {}}
            run_folder.config.write_text(json.dumps({"config": to_dict(config)} | described))
            run_folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return Outcome.FINISHED

        monkeypatch.setattr("kaem_jax.app.tune.train_and_evaluate", run)
        return calls

    return install


def test_trials_see_the_validation_split_and_the_best_settings_the_test_split(folder, written):
    calls = written([None, [9.0, 1.0], [0.0, 3.0], [7.0, 2.0], 0.0].__getitem__)
    config = tiny_config(**VALIDATION)

    def with_batches(trial):
        return space(trial) | {"data.batch_size": trial.suggest_int("batch", 8, 31)}

    assert tune(config, with_batches, folder, 3) is Outcome.FINISHED
    *trials, (name, final, _) = calls
    assert ([trial for trial, *_ in trials], name) == (["000", "001", "002"], "best")
    assert all((trial.data.held_out, trial.data.validation_size) == ("validation", 50) for _, trial, _ in trials)
    assert (final.data.held_out, final.data.validation_size) == ("test", 0)
    best = trials[1][1]
    assert (final.prior, final.optimizer, final.data.batch_size) == (best.prior, best.optimizer, best.data.batch_size)
    assert final.optimizer != config.optimizer
    assert table(folder, "nats") == ["1", "3", "2"]


def test_kinds_can_be_searched(folder, written):
    """Settings of another kind have their defaults, those of the experiment's own its values; names may depend."""

    def of_kinds(trial):
        kind, clusters = ("mixture", {}) if trial.number % 2 else ("clustered", {"prior.num_clusters": 5})
        return {"prior.kind": kind, "optimizer.prior.learning_rate": trial.suggest_float("rate", 1e-4, 1e-3)} | clusters

    config, calls = tiny_config(**VALIDATION), written()
    assert tune(config, of_kinds, folder, 2) is Outcome.FINISHED
    clustered = kaem.ClusteredPrior(num_latents=2, num_clusters=5, basis=config.prior.basis)
    assert [trial.prior for _, trial, _ in calls[:2]] == [clustered, config.prior]


def failing(*errors, call=2):
    """The value of a run, but that the calls from this one on raise."""

    def value(number):
        if call <= number < call + len(errors):
            raise errors[number - call]
        return float(number)

    return value


def test_a_trial_that_cannot_be_run_to_its_end_ends_no_study(folder, written, capsys):
    out_of_memory = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    errors = (
        DivergedError("train/loss is nan at step 3"),
        ConfigError("prior.grid_size=1"),
        MemoryError(),
        out_of_memory,
    )
    calls = written(failing(*errors))
    assert tune(tiny_config(**VALIDATION), space, folder, 6) is Outcome.FINISHED
    assert table(folder) == ["complete", *["pruned"] * 4, "complete"]
    assert "trial 1: left out (" in capsys.readouterr().err
    assert calls[-1][1].optimizer == calls[-2][1].optimizer


class KilledError(BaseException):
    """As a process ends that is killed."""


def test_what_would_end_every_trial_ends_the_study_which_can_be_continued(folder, written):
    """A writer of checkpoints says of a full disk what others say of a full memory, which leaves a trial out."""
    errors = [
        DataError("a file is gone"), jax.errors.JaxRuntimeError("INTERNAL: a device is gone"), KilledError(),
        ValueError("RESOURCE_EXHAUSTED: a write: No space left on device"),
    ]  # fmt: skip
    value = failing(*errors)
    written(lambda number: Outcome.INTERRUPTED if number == 6 else value(number))
    for error in errors:
        with pytest.raises(type(error)):
            tune(tiny_config(**VALIDATION), space, folder, 3)
    assert tune(tiny_config(**VALIDATION), space, folder, 3) is Outcome.INTERRUPTED
    assert tune(tiny_config(**VALIDATION), space, folder, 3) is Outcome.FINISHED
    assert table(folder) == ["complete", *["fail"] * 5, "complete", "complete"]
    assert len(set(table(folder, RATE))) == 8  # a study that goes on does not draw its first values again


def test_what_cannot_be_searched_is_refused_before_any_trial_or_at_the_first(folder, written, refuses):
    written()
    with refuses(ConfigError, "data.validation_size"):
        tune(tiny_config(**SHORT), space, folder, 2)
    assert not folder.exists()
    for name, value, part in (
        ("prior.num_latent", 3, "did you mean 'num_latents'?"), (COMPONENTS, 0, "at least 1"),
        ("data.validation_size", 7, "not be compared"), ("evaluation.estimator.num_samples", 7, "not be compared"),
        ("likelihood.kind", "bernoulli", "not be compared"),
    ):  # fmt: skip
        with refuses(ConfigError, name, part):
            tune(tiny_config(**VALIDATION), lambda _, given=(name, value): dict([given]), folder / name, 2)


def test_a_trial_below_the_median_of_five_others_is_stopped_early(folder, written):
    """By its evaluations during training; the one after the last update comes too late to save anything."""
    halfway = [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 4.0, 0.0]
    calls = written(lambda number: [halfway[number - 1], 10.0 if number == 7 else 50.0])
    assert tune(tiny_config(**VALIDATION), space, folder, 7) is Outcome.FINISHED
    assert table(folder) == [*["complete"] * 5, "pruned", "complete"]
    assert calls[-1][0] == "best"


def test_a_study_is_continued_with_its_own_settings_and_data_and_by_one_search(folder, monkeypatch, written, refuses):
    """A second search would take the trial that the first one is running for a dead one."""
    config = tiny_config(**VALIDATION)

    def value(number):
        with refuses(RunError, "--out ", "study is in use by process"):
            tune(config, space, folder, 9)
        return float(number)

    calls = written(value)
    for _ in range(2):
        assert tune(config, space, folder, 1) is Outcome.FINISHED
    assert (table(folder), [name for name, *_ in calls]) == (["complete"], ["000", "best", "best"])
    with refuses(ConfigError, "study of other settings or data"):
        tune(tiny_config(**VALIDATION, seed=3), space, folder, 1)
    monkeypatch.setattr(Dataset, "fingerprint", lambda _: 7)
    with refuses(ConfigError, "study of other settings or data"):
        tune(config, space, folder, 1)


@pytest.mark.parametrize("name", [RATE, "decoder.hidden"])
def test_a_study_is_extended_and_its_final_run_replaced_only_by_other_settings(folder, written, name):
    config, finals = tiny_config(**VALIDATION), []
    calls = written([None, 1.0, 2.0, 0.0, -5.0, 0.0, 9.0, 0.0].__getitem__)

    def one(trial):
        rate = trial.suggest_float("rate", 1e-6, 1e-2)
        return {name: rate if name == RATE else (trial.number + 1,)}

    for num_trials in (2, 3, 4):  # the second trial is best, then still, then the fourth
        assert tune(config, one, folder, num_trials) is Outcome.FINISHED
        run, final, overwrite = calls[-1]
        assert run == "best"
        finals.append(((final.optimizer, final.decoder), overwrite))
    assert [overwrite for _, overwrite in finals] == [False, False, True]
    assert finals[0][0] == finals[1][0] != finals[2][0]


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.FINISHED, 0), (Outcome.INTERRUPTED, 75)])
def test_the_command_passes_on_what_is_asked_and_says_how_it_ended(tmp_path, monkeypatch, capsys, outcome, code):
    """After 75 a launcher starts the same command again."""
    (tmp_path / "space.py").write_text("def space(trial):\n    return {'seed': 3}\n")
    asked = []
    monkeypatch.setattr(command, "tune", lambda *given: asked.extend(given) or outcome)
    config = str(ROOT / "tests" / "app" / "tiny.py")
    flags = ["--config", config, "--space", str(tmp_path / "space.py"), "--out", str(tmp_path / "s")]
    assert command.main([*flags, "--trials", "7", "--config.seed=5"]) == code
    experiment, found, *rest = asked
    assert (experiment.seed, found(None), rest) == (5, {"seed": 3}, [tmp_path / "s", 7])
    assert ("continues the study" in capsys.readouterr().err) == (code == 75)


def test_a_file_without_a_space_is_refused(tmp_path, refuses):
    path = tmp_path / "space.py"
    for content, part in (("x = 1", "space"), ("import nosuch", "nosuch"), ("def (:", "Syntax"), (None, "No such")):
        path.write_text(content) if content else path.unlink()
        with refuses(ConfigError, f"--space {path} cannot be read", part):
            read_space(path)
