"""The loop in this process: one trace, divergence, evaluation that leaves training alone."""

import contextlib
import dataclasses
import json
import shutil
import signal
import types
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax import train
from kaem_jax.data import batch_indices, load_dataset
from kaem_jax.devices.preemption import StopRequest
from kaem_jax.errors import DivergedError
from kaem_jax.inference.samplers import Sampler
from kaem_jax.model import Model
from kaem_jax.runs.build import build_model, build_optimizer, build_sampler, build_train_step, is_averaged
from kaem_jax.settings import settle
from kaem_jax.runs.experiment import Experiment
from kaem_jax.errors import ConfigError
from kaem_jax.data.settings import DataSettings
from kaem_jax.settings.combinations import check_schedules
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training import performance
from kaem_jax.training import step as train_step_module
from kaem_jax.training.keys import run_keys
from kaem_jax.training.log import ProgressReporter
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.state import TrainState, init_train_state
from tests.training.tiny import tiny_dict


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is built from, and its first state."""

    config: Config
    model: Model
    optimizer: object
    sampler: Sampler
    state: TrainState

    def train_step(self):
        return build_train_step(self.config, self.model, self.optimizer, self.sampler)


def parts_of(config, num_data, key=None, data_shape=(8, 8)):
    """The objects of a configuration, as the program builds them."""
    model, optimizer = build_model(config, data_shape), build_optimizer(config)
    sampler = build_sampler(config, model.prior, model.data_shape)
    key = jax.random.key(0) if key is None else key
    state = init_train_state(key, model, optimizer, sampler, num_data, averaged=is_averaged(config))
    return Parts(config, model, optimizer, sampler, state)


def tiny_config(**overrides):
    values, names = tiny_dict(), {key.replace("__", ".") for key in overrides}
    for key, value in overrides.items():
        *groups, field = key.split("__")
        target = values
        for group in groups:
            target = target[group]
        target[field] = value
    if not any(name.startswith("parallel") for name in overrides):
        values["parallel"] = {"data": 1, "temp": 1}  # one of this process's fake devices
    return Config.from_dict(settle(values, names, Config), names)


@pytest.fixture(autouse=True)
def _setting(monkeypatch):
    """optax's schedules multiply floats with integer counts; pictures are the business of test_run.py."""
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
def test_the_step_is_traced_once(tmp_path, monkeypatch):
    """Ten steps, two evaluations: jit must not trace the loss again."""
    monkeypatch.setattr(train_step_module, "posterior_loss", chex.assert_max_traces(posterior_loss, n=1))
    chex.clear_trace_counter()
    config = tiny_config(train__num_steps=20, checkpoint__every_steps=20)
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED


def test_the_first_call_of_the_step(tmp_path, monkeypatch):
    """It gets the first state of this seed, the training images in this seed's order, and their classes."""

    class CalledError(Exception):
        pass

    def lower(state, batch):
        raise CalledError(state, batch)

    monkeypatch.setattr(train, "build_train_step", lambda *_: types.SimpleNamespace(lower=lower))
    config = tiny_config(
        seed=3, train__steps_per_call=5, optimizer__average_decay=0.5, prior__kind="clustered", prior__inner=10,
        prior__num_classes=10, data__labels=True, data__num_train=100, encoder__kind="mlp", encoder__hidden=(4,),
        posterior__kind="variational", evaluation__reference="encoder",
    )  # fmt: skip
    expected = parts_of(config, 100, run_keys(3).state).state
    with pytest.raises(CalledError) as called:
        train_and_evaluate(config, tmp_path / "run")
    state, batch = called.value.args
    data = load_dataset(DataSettings(num_train=100))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, state.average, state.params)
    assert jax.random.key_data(state.root_key).tolist() == jax.random.key_data(expected.root_key).tolist()
    indices = np.stack([batch_indices(step, size=100, batch_size=32, seed=3) for step in range(5)])
    np.testing.assert_array_equal(batch.indices, indices)
    for k in range(2):
        np.testing.assert_array_equal(batch.data(k), data.train[indices[k]])
        np.testing.assert_array_equal(batch.labels(k), data.train_labels(indices[k]))


@pytest.mark.slow
def test_evaluating_more_often_changes_no_training_and_the_last_step_is_always_evaluated(tmp_path):
    """It is also logged and saved, here as step 22, which no interval divides."""
    runs = []
    for name, every, evaluated in (("often", 5, {5, 10, 15, 20, 22}), ("rarely", 20, {20, 22})):
        config, watched = tiny_config(train__num_steps=22, evaluation__every_steps=every), []
        train_and_evaluate(config, tmp_path / name, watch=watched.append)
        runs.append(kaem.load(tmp_path / name))
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [5, 10, 15, 20, 22, 22]
        for row, seen in zip(rows[:-1], watched, strict=True):
            assert {key: row[key] for key in row if key.startswith("eval/")} == {
                key: value for key, value in seen.items() if key.startswith("eval/")
            }
        assert {row["step"] for row in rows[:-1] if "eval/log_likelihood" in row} == evaluated
    assert [run.step for run in runs] == [22, 22]
    jax.tree.map(np.testing.assert_array_equal, *[run.params for run in runs])


@pytest.mark.slow
def test_a_signal_between_a_log_line_and_the_next_step_saves_too(tmp_path, monkeypatch):
    """At a log step that is no checkpoint step nothing is pending, yet nothing is saved either."""

    def report(self, row):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressReporter, "report", report)
    assert train_and_evaluate(tiny_config(), tmp_path / "run") is Outcome.INTERRUPTED
    assert kaem.load(tmp_path / "run").step == 5
    # Nobody knows how good it is, so it must not be taken for the best one.
    saved = json.loads((tmp_path / "run" / "checkpoints" / "5" / "meta" / "metadata").read_text())
    assert saved["log_likelihood"] is None


@pytest.mark.slow
def test_rates_are_those_of_training_alone_also_after_an_interruption(tmp_path, monkeypatch):
    """With a clock by which a step takes a second and an evaluation a thousand."""
    now, evaluate = [0.0], train._Training.evaluate

    def take(seconds):
        now[0] += seconds

    def report(self, row):
        if row["step"] in (10, 15):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(performance, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(train.Profiler, "after", lambda *_: take(1))
    monkeypatch.setattr(train._Training, "evaluate", lambda self, given: take(1000) or evaluate(self, given))
    monkeypatch.setattr(ProgressReporter, "report", report)
    config = tiny_config(evaluation__every_steps=5)
    for _ in range(2):
        assert train_and_evaluate(config, tmp_path / "run") is Outcome.INTERRUPTED
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["perf/steps_per_second"]) for row in rows] == [(5, 1), (10, 1), (15, 1)]


@pytest.mark.slow
def test_grid_updates_between_log_lines_are_logged_also_of_a_run_that_stops(tmp_path, monkeypatch):
    """A grid step is seldom a log step: its row comes with the next one, or before the run is saved."""

    def after(self, step, metrics):
        if step == 8:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train.Profiler, "after", after)
    config = tiny_config(grid_update__first_step=2, grid_update__growth=3.0, grid_update__source="prior")
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.INTERRUPTED
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "train/grid_change" in row) for row in rows] == [(2, True), (5, False), (8, True)]


@pytest.mark.slow
def test_a_signal_at_the_very_end_leaves_the_rest_to_the_next_start(tmp_path, monkeypatch):
    """In the last step's evaluation it is seen; in the long one after it, it acts as before training."""
    config = tiny_config(train__num_steps=10, checkpoint__every_steps=10)

    def report(self, row):
        if row["step"] == 10 and not (tmp_path / "run" / "checkpoints" / "10").exists():
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressReporter, "report", report)
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.INTERRUPTED
    assert kaem.load(tmp_path / "run").step == 10
    assert not (tmp_path / "run" / "summary.json").exists()
    evaluate = train._Training.evaluate
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(self, evaluators):
        signal.raise_signal(signal.SIGINT)
        return evaluate(self, evaluators)

    try:
        monkeypatch.setattr(train._Training, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(train._Training, "evaluate", evaluate)
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 10]


def test_processes_compare_what_they_train_and_from_where(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(train, "check_same_on_all_processes", compared.append)
    config = tiny_config(train__num_steps=10, checkpoint__every_steps=10)
    train_and_evaluate(config, tmp_path / "run")
    (read, fresh), compared[:] = compared, []
    (tmp_path / "run" / "summary.json").unlink()
    train_and_evaluate(dataclasses.replace(config, seed=config.seed), tmp_path / "run")
    assert list(read) == ["the configuration", "the training data", "the held-out data"]
    assert compared[0] == read
    assert read["the held-out data"] == load_dataset(config.data).held_out_fingerprint()
    assert [*fresh.values(), *compared[1].values()] == [0, 10]
    monkeypatch.setattr(train, "check_same_on_all_processes", lambda values: compared.append(values) or 1 / 0)
    for changed in (tiny_config(seed=7), tiny_config(data__num_train=50)):
        with pytest.raises(ZeroDivisionError):
            train_and_evaluate(changed, tmp_path / "other")
        assert compared[-1] != read
    assert not (tmp_path / "other" / "config.json").exists()


@pytest.mark.parametrize("per_call", [1, 4])
def test_processes_look_for_a_signal_at_every_count(monkeypatch, per_call):
    """They agree on one more than the largest count so far: 1 before the first look, which a resumed run is beyond."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    class Manager:
        asked: ClassVar[list[int]] = []
        agreed = 22

        def reached_preemption(self, count):
            self.asked.append(count)
            return count == self.agreed

    manager = Manager()
    training = train._Training(None, None, None, None, manager, None, None)
    found = []
    for step in range(20, 33, per_call):
        training.step = step
        found.append(training.stop_requested())
    assert manager.asked == list(range(33))
    assert found.index(True) == {1: 2, 4: 1}[per_call]
    manager.agreed = 1  # a signal before the first look of a resumed run
    resumed = train._Training(None, None, None, None, manager, None, None)
    resumed.step = 20
    assert resumed.stop_requested()


def test_a_second_signal_is_not_waited_for():
    """What hangs can be stopped: after the first one, the handler from before is back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signal_name == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_divergence_stops_with_step_metric_and_the_last_good_checkpoint(tmp_path, monkeypatch):
    """A checkpoint is saved every 20 steps; the minibatch after step 26 is no number."""
    workdir, plain = tmp_path / "run", train.Feed.__call__
    poison = jax.jit(lambda x: x * jnp.nan)  # the loop moves nothing to the device unasked

    def poisoned(self, step):
        batch = plain(self, step)
        return batch if step < 26 else dataclasses.replace(batch, stored=poison(batch.stored))

    monkeypatch.setattr(train.Feed, "__call__", poisoned)
    with pytest.raises(DivergedError, match=r"train/\w+ is nan at step 27; the checkpoint of step 20 is kept"):
        train_and_evaluate(tiny_config(), workdir)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["20"]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(kaem.load(workdir, 20).params))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_evaluation_that_is_not_finite_stops_too(monkeypatch, value):
    monkeypatch.setattr(train._Training, "as_run", lambda _: None)
    training = train._Training(None, None, None, None, types.SimpleNamespace(steps=[20]), None, None)
    training.step = 25
    evaluator = types.SimpleNamespace(run=lambda _: {"reconstruction": {"mean_squared_error": value}})
    with pytest.raises(DivergedError, match=r"eval/reconstruction_error is (nan|inf) at step 25; .* step 20 is kept"):
        training.evaluate([evaluator])


class StoppedHereError(Exception):
    pass


def test_a_resumed_run_counts_on_with_the_settings_of_now(finished, tmp_path, monkeypatch, capsys):
    """From step 40 of 60: which steps are traced and shown, where data stay, what samples are compared with."""
    workdir, made = tmp_path / "run", {}
    shutil.copytree(finished[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "60")
    (workdir / "summary.json").unlink()

    def told(name, stop=False):
        def make(*given, **options):
            made[name] = (given, options)
            if stop:
                raise StoppedHereError
            return contextlib.nullcontext()

        monkeypatch.setattr(train, name, make)

    compiled = types.SimpleNamespace(compile=lambda: None)
    monkeypatch.setattr(train, "build_train_step", lambda *_: types.SimpleNamespace(lower=lambda *_: compiled))
    plain_feed = train.Feed
    monkeypatch.setattr(
        train, "Feed", lambda *given, **options: made.update(Feed=(given, options)) or plain_feed(*given, **options)
    )
    monkeypatch.setattr(train, "prepare_features", lambda *_: None)
    for name in ("Performance", "ProgressReporter", "SampleComparison"):
        told(name)
    told("Profiler", stop=True)
    described = json.loads((workdir / "config.json").read_text())
    settings = described["config"]
    settings["train"]["steps_per_call"] = 5
    described["versions"]["jax"] = "0.1"
    (workdir / "config.json").write_text(json.dumps(described))
    settings["data"]["storage"] = "host"
    settings["evaluation"] |= {"samples_every_steps": 10, "num_images": 50}
    config = Config.from_dict(settings)
    with jax.numpy_dtype_promotion("standard"), pytest.raises(StoppedHereError):
        train_and_evaluate(config, workdir, num_profiled=3)
    assert "not bit for bit" in capsys.readouterr().err
    assert made["ProgressReporter"][0] == (60, 40)
    assert made["Performance"][0][:2] == (40, config.data.batch_size)
    assert made["Performance"][0][3] == config.train.steps_per_call == 5
    assert made["Profiler"][0][1:] == (3, 40)
    (_, storage, _), options = made["Feed"]
    assert storage == "host"
    assert (options["batch_size"], options["seed"]) == (config.data.batch_size, config.seed)
    (_, _, _, num_images), options = made["SampleComparison"]
    assert (num_images, options) == (50, {"seed": config.seed})


@pytest.mark.slow
def test_the_last_checkpoint_is_whole_before_a_signal_may_end_the_process(tmp_path, monkeypatch):
    """After `release` SIGTERM kills a process of the user's own at once."""
    done = []
    for owner, name in ((train.Checkpoints, "wait"), (StopRequest, "release")):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda self, name=name, plain=plain: done.append(name) or plain(self))
    config = tiny_config(train__num_steps=10, checkpoint__every_steps=10)
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    assert done[: done.index("release")][-1:] == ["wait"]
    # A signal while it is written is not forgotten.
    waited = train.Checkpoints.wait
    monkeypatch.setattr(train.Checkpoints, "wait", lambda self: signal.raise_signal(signal.SIGTERM) or waited(self))
    assert train_and_evaluate(config, tmp_path / "interrupted") is Outcome.INTERRUPTED
    assert not (tmp_path / "interrupted" / "summary.json").exists()


@pytest.mark.slow
def test_a_finished_run_is_judged_again_with_other_settings_of_evaluation(tmp_path, monkeypatch):
    short = {"train__num_steps": 10, "checkpoint__every_steps": 10}
    summaries = []
    for effort in (400, 400, 480):
        config = tiny_config(**short, evaluation__final_num_samples=effort)
        assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [5, 10, 10]
        summaries.append(json.loads((tmp_path / "run" / "summary.json").read_text()))
    assert summaries[0] == summaries[1]
    assert [summary["eval/num_samples"] for summary in summaries] == [400, 400, 480]
    assert kaem.load(tmp_path / "run").config.evaluation.final_num_samples == 480
    assert json.loads((tmp_path / "run" / "summary_before.json").read_text()) == summaries[0]
    # Killed in that evaluation, it is done again: the numbers of before are not its own.
    config = tiny_config(**short, evaluation__final_num_samples=560)
    with monkeypatch.context() as patch:
        patch.setattr(train._Training, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_and_evaluate(config, tmp_path / "run")
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["eval/num_samples"] == 560


def test_schedules_that_outlast_training_are_refused_before_it_begins(tmp_path, refuses):
    encoder = {"posterior__kind": "variational", "encoder__kind": "mlp", "evaluation__reference": "encoder"}
    encoder["train__num_steps"] = 40
    with refuses(ConfigError, "posterior.kl_warmup_steps=40", "train.num_steps=40"):
        train_and_evaluate(tiny_config(**encoder, posterior__kl_warmup_steps=40), tmp_path / "run")
    annealed = {"likelihood__learn_sigma": False, "likelihood__anneal_from": 1.0, "train__num_steps": 40}
    with refuses(ConfigError, "likelihood.anneal_steps=41", "train.num_steps=40"):
        train_and_evaluate(tiny_config(**annealed, likelihood__anneal_steps=41), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_schedules(tiny_config(**encoder, posterior__kl_warmup_steps=39))
    at_once = {"train__num_steps": 20, "train__steps_per_call": 20, "train__log_every": 20}
    at_once |= {"evaluation__every_steps": 20, "grid_update__first_step": 6}
    with refuses(ConfigError, "grid_update.first_step=6", "train.steps_per_call=20 makes one call of"):
        check_schedules(tiny_config(**at_once))  # a folder of an older run may hold it, and is read
    check_schedules(tiny_config(**annealed, likelihood__anneal_steps=40))


@pytest.mark.slow
def test_a_comparison_that_cannot_be_made_is_said_once(tmp_path, monkeypatch, capfd):
    """Samples are compared at their own steps, and figures are of held-out data at those of checkpoints."""
    compared, drawn = [], []

    def compare(self, run):
        compared.append(run.step)
        return {"fid": {"reason": "no room"}}

    monkeypatch.setattr(train, "prepare_features", lambda *_: None)
    monkeypatch.setattr(train.SampleComparison, "run", compare)
    monkeypatch.setattr(train, "draw_progress", lambda *given: drawn.append(given))
    config = tiny_config(
        train__num_steps=50, evaluation__every_steps=10, evaluation__samples_every_steps=20, checkpoint__every_steps=20
    )
    train_and_evaluate(config, tmp_path / "run")
    said = capfd.readouterr()
    assert (said.out + said.err).count("warning: fid is left out: no room") == 1
    assert compared == [20, 40, 50]
    assert [run.step for _, _, run, _ in drawn] == [20, 40, 50]
    held_out = load_dataset(config.data).held_out
    for _, key, _, x in drawn:
        assert jax.random.key_data(key).tolist() == jax.random.key_data(run_keys(config.seed).figures).tolist()
        np.testing.assert_allclose(x, held_out, rtol=1e-6)
