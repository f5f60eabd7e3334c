"""The loop in this process: one trace, divergence, evaluation that leaves training alone."""

import dataclasses
import functools
import itertools
import json
import re
import signal
import types
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app import loop as train
from kaem_jax.app.data import load_dataset
from kaem_jax.app.data.config import DataSettings
from kaem_jax.app.evaluation import periodic
from kaem_jax.app.log import Performance
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.training_run import TrainingRun
from kaem_jax.errors import DivergedError
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.jax_utils.keys import evaluation_keys, refit_key, run_keys
from kaem_jax.training import step as train_step_module
from kaem_jax.training.batch import batch_indices
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.refit import refit_state
from kaem_jax.training.stage import Stage
from tests.app.conftest import rows_of
from tests.app.evaluation.conftest import numbers_of
from tests.app.tiny import parts_of, tiny_config

pytestmark = pytest.mark.usefixtures("as_users_run_it", "drawn")  # pictures are the business of test_run.py

SHORT = {"train__num_steps": 10, "checkpoint__every_steps": 10}


def evaluated_rows_of(folder):
    """Rows of evaluations during training."""
    return [row for row in rows_of(folder) if "eval/log_likelihood" in row and not row.get("eval/is_final")]


def test_the_first_call_of_the_step(tmp_path, monkeypatch):
    """It gets the first state of this seed, the training images in this seed's order, and their classes."""

    class CalledError(Exception):
        pass

    def lower(state, batch):
        raise CalledError(state, batch)

    monkeypatch.setattr(Stage, "train_step", lambda *_: types.SimpleNamespace(lower=lower))
    config = tiny_config(
        seed=3, train__steps_per_call=5, optimizer__average_decay=0.5, prior__kind="clustered", prior__num_clusters=10,
        prior__num_classes=10, data__labels=True, data__num_train=100, posterior__kind="variational",
        posterior__encoder__hidden=(4,), evaluation__proposal="encoder",
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
def test_evaluating_more_often_changes_no_training_and_the_last_step_is_always_evaluated(
    tmp_path, monkeypatch, capfd, drawn
):
    """It is also logged, saved and drawn, here as step 22, which no interval divides. A run traces its loss once."""
    monkeypatch.setattr(train_step_module, "posterior_loss", chex.assert_max_traces(posterior_loss, n=2))
    chex.clear_trace_counter()
    runs = []
    for name, every, evaluated in (("often", 5, {5, 10, 15, 20, 22}), ("rarely", 20, {20, 22})):
        config, watched = tiny_config(train__num_steps=22, evaluation__every_steps=every), []
        train_and_evaluate(config, tmp_path / name, watch=watched.append)
        runs.append(kaem.load_run(tmp_path / name))
        rows = rows_of(tmp_path / name)
        assert [row["step"] for row in rows if "train/loss" in row] == [5, 10, 15, 20, 22]
        assert rows[:-1] == watched
        assert {row["step"] for row in evaluated_rows_of(tmp_path / name)} == evaluated
        assert (rows[-1]["step"], rows[-1]["eval/is_final"]) == (22, True)
        assert capfd.readouterr().err.count("drawing samples and densities") == 1  # what is done is said once
    assert [run.step for run in runs] == [22, 22]
    jax.tree.map(np.testing.assert_array_equal, *[run.params for run in runs])
    drawn = [given for name, *given in drawn if name == "draw_samples"]
    assert [run.step for _, _, run, _ in drawn] == [20, 22] * 2
    held_out = load_dataset(config.data).held_out
    # The numbers at the end are those of `kaem evaluate`.
    x, key, (run, _) = jnp.asarray(held_out), evaluation_keys(0).likelihood, runs
    evidence = kaem.log_evidence(key, run.model, run.params, x, num_samples=500, chunk_size=100)
    assert rows[-1]["eval/log_likelihood"] == pytest.approx(float(evidence.value.mean()), rel=1e-6)
    for _, key, _, x in drawn:
        assert jax.random.key_data(key).tolist() == jax.random.key_data(run_keys(config.seed).figures).tolist()
        np.testing.assert_allclose(x, held_out, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "step", "done"), [("row", 5, []), pytest.param("summary", 10, [5, 10], marks=pytest.mark.slow)]
)
def test_a_signal_ends_an_evaluation_at_once_and_the_next_start_does_it(tmp_path, monkeypatch, name, step, done):
    """Its step is saved."""
    config, folder = tiny_config(**SHORT, evaluation__every_steps=5), tmp_path / "run"

    def stopped(self, *given):
        assert self._training.step == step
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the evaluation went on")

    with monkeypatch.context() as patch:
        patch.setattr(periodic.PeriodicEvaluation, name, stopped)
        assert train_and_evaluate(config, folder) is Outcome.INTERRUPTED
    assert kaem.load_run(folder).step == step
    assert [row["step"] for row in evaluated_rows_of(folder)] == done
    assert not (folder / "summary.json").exists()
    assert train_and_evaluate(config, folder) is Outcome.FINISHED
    assert [row["step"] for row in rows_of(folder)] == [5, 5, 10, 10, 10]


@pytest.mark.parametrize(("per_call", "index"), [(1, 2), (4, 1)])
def test_processes_look_for_a_signal_at_every_count(monkeypatch, per_call, index):
    """They agree on one more than the largest count so far: 1 before the first look, which a resumed run is beyond."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    class Manager:
        asked: ClassVar[list[int]] = []
        agreed = 22

        def reached_preemption(self, count):
            self.asked.append(count)
            return count == self.agreed

    manager = Manager()
    training = TrainingRun(None, None, None, manager, None, None)
    found = []
    for step in range(20, 33, per_call):
        training.step = step
        found.append(training.stop_requested())
    assert manager.asked == list(range(33))
    assert found.index(True) == index
    manager.agreed = 1  # a signal before the first look of a resumed run
    resumed = TrainingRun(None, None, None, manager, None, None)
    resumed.step = 20
    assert resumed.stop_requested()


@pytest.mark.slow
def test_divergence_stops_with_step_metric_and_the_last_good_checkpoint(tmp_path, monkeypatch):
    """A checkpoint is saved every 10 steps; the minibatch after step 11 is no number."""
    workdir, plain = tmp_path / "run", train.Feed.__call__
    poison = jax.jit(lambda x: x * jnp.nan)  # the loop moves nothing to the device unasked

    def poisoned(self, step, count=1):
        batch = plain(self, step, count)
        return batch if step < 11 else dataclasses.replace(batch, stored=poison(batch.stored))

    monkeypatch.setattr(train.Feed, "__call__", poisoned)
    with pytest.raises(DivergedError, match=r"train/\w+ is nan at step 12; the checkpoint of step 10 is kept"):
        train_and_evaluate(tiny_config(checkpoint__every_steps=10), workdir)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["10"]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(kaem.load(workdir, 10).params))


def test_an_evaluation_that_is_not_finite_stops_too(tmp_path, monkeypatch):
    monkeypatch.setattr(periodic.reconstruction, "evaluate", lambda *_: ({"mean_squared_error": float("inf")}, None))
    with pytest.raises(DivergedError, match=r"eval/reconstruction_error is inf at step 10; no checkpoint was"):
        train_and_evaluate(tiny_config(), tmp_path / "run")
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [5, 10]


@pytest.mark.slow
def test_a_signal_while_the_last_checkpoint_is_written_is_not_forgotten(tmp_path, monkeypatch):
    waited = train.Checkpoints.wait
    monkeypatch.setattr(train.Checkpoints, "wait", lambda self: signal.raise_signal(signal.SIGTERM) or waited(self))
    assert train_and_evaluate(tiny_config(**SHORT), tmp_path / "interrupted") is Outcome.INTERRUPTED
    assert not (tmp_path / "interrupted" / "summary.json").exists()


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_with_other_settings_of_evaluation(tmp_path, monkeypatch):
    summaries, folder = [], tmp_path / "run"
    for effort in (400, 400, 480):
        config = tiny_config(**SHORT, evaluation__estimator__final_num_samples=effort)
        assert train_and_evaluate(config, folder) is Outcome.FINISHED
        assert [row["step"] for row in rows_of(folder)] == [5, 10, 10, 10]
        summaries.append(json.loads((folder / "summary.json").read_text()))
    assert summaries[0] == summaries[1]
    assert [summary["eval/num_samples"] for summary in summaries] == [400, 400, 480]
    assert kaem.load_run(folder).config.evaluation.estimator.final_num_samples == 480
    assert json.loads((folder / "summary_before.json").read_text()) == summaries[0]
    # Killed in that evaluation, it is done again: the numbers of before are not its own.
    config = tiny_config(**SHORT, evaluation__estimator__final_num_samples=560)
    with monkeypatch.context() as patch:
        patch.setattr(periodic.log_likelihood, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_and_evaluate(config, folder)
    assert train_and_evaluate(config, folder) is Outcome.FINISHED
    assert json.loads((folder / "summary.json").read_text())["eval/num_samples"] == 560


def test_the_final_evaluation_can_be_left_out(tmp_path, capfd, drawn):
    """The last one during training stands in its place, with its pictures."""
    config = tiny_config(**SHORT, evaluation__final=False)
    assert train_and_evaluate(config, tmp_path) is Outcome.FINISHED
    *_, last = evaluated_rows_of(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == last
    assert (last["step"], last["eval/num_data"], "eval/is_final" in last) == (10, 60, False)
    (_, _, key, run, held_out), *others = drawn
    assert (numbers_of(key), run.step, len(held_out)) == (numbers_of(run_keys(0).figures), 10, 100)
    assert [name for name, *_ in others] == ["draw_held_out"] * 2  # curves once more, with the last row
    assert "the final evaluation takes" not in capfd.readouterr().err
    assert train_and_evaluate(tiny_config(**SHORT), tmp_path) is Outcome.FINISHED  # it is made up for
    said = re.search(r"all 100 held-out data: ([\d.]+) times the last evaluation(.*);", capfd.readouterr().err)
    assert (float(said[1]), said[2]) == (2.08, "")  # of 500 proposals, not 400, and 100 data, not 60; nothing is timed
    assert rows_of(tmp_path)[-1]["eval/is_final"]


def test_a_fitted_prior_that_held_out_draws_contradict_is_dropped(capfd):
    """A fit to all data replaces the initial prior; one of eight clusters to twenty of them is worse than that fit.

    Draws are those under the average, here the initial parameters.
    """
    config = tiny_config(
        prior__kind="clustered", prior__num_clusters=8, prior__map="full", prior__shape="gaussian",
        posterior__kind="variational", posterior__encoder__hidden=(8,), evaluation__proposal="encoder",
        data__num_train=300, train__refit=True,
    )  # fmt: skip
    parts = parts_of(config, 300, run_keys(0).state)
    x, before = load_dataset(config.data).train[np.arange(300)], parts.state.params
    state = dataclasses.replace(parts.state, average=before, params=jax.tree.map(jnp.zeros_like, before))
    first = refit_state(state, parts.model, config.posterior, x, None, 10)
    assert "which replaces it" in capfd.readouterr().err
    assert not np.allclose(first.params["prior"]["location"], before["prior"]["location"])
    posterior = FrozenSampler.freeze(config.posterior, state.sampler, 10)
    _, expected = kaem.refit(refit_key(state.root_key, 10), parts.model, before, x, posterior, parts.model.prior)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    for params in (first.params, first.average):
        jax.tree.map(close, params["prior"], expected["prior"])
    assert refit_state(first, parts.model, config.posterior, x[:20], None, 10) is first
    assert "which is dropped" in capfd.readouterr().err


def test_a_run_times_updates_alone_and_keeps_what_it_estimated(tmp_path, monkeypatch):
    """Neither compilation nor evaluations count in rates; estimates decide which checkpoints are best."""
    events, given = [], []
    for of, name in ((Performance, "restart"), (Performance, "row"), (periodic.PeriodicEvaluation, "row")):
        said, usual = name if of is Performance else "evaluated", getattr(of, name)

        def told(self, *args, said=said, usual=usual):
            events.append(said)
            return usual(self, *args)

        monkeypatch.setattr(of, name, told)
    monkeypatch.setattr(train, "Checkpoints", lambda *args: given.append(args) or Checkpoints(*args))
    config = tiny_config(train__num_steps=10, evaluation__every_steps=5, evaluation__final=False)
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    assert events[:3] == ["restart", "restart", "row"]
    assert events.count("evaluated") == events.count("row") == 2
    assert all(after == "restart" for now, after in itertools.pairwise(events) if now != "restart")
    assert given[0][2].keys() == {5, 10}
