"""Runs that differ in their seeds, trained as one program."""

import dataclasses
import shutil
import signal

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app import replicas
from kaem_jax.app.evaluation import periodic
from kaem_jax.app.log import read_metrics
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.replicas import train_replicas
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import ConfigError, DivergedError, RunError
from kaem_jax.settings import to_dict
from kaem_jax.training.progress import ProgressReporter
from tests.app.tiny import tiny_config

SETTINGS = {
    "seed": 5, "posterior__kind": "variational", "posterior__encoder__hidden": (8,), "evaluation__proposal": "encoder",
    "evaluation__every_steps": 10, "checkpoint__every_steps": 10, "train__num_steps": 20, "train__steps_per_call": 2,
    "train__log_every": 2, "optimizer__average_decay": 0.9, "data__num_train": 100,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch):
    for name in ("draw_samples", "draw_held_out"):
        monkeypatch.setattr(periodic, name, lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield


def arrays(folder):
    return jax.tree.leaves(kaem.load_run(folder).params)


def losses(folder):
    return [(row["step"], row["train/loss"]) for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row]


def test_each_is_the_run_of_its_seed_and_goes_on_after_a_signal(tmp_path, monkeypatch):
    """On as many devices; the run of one seed alone beside them, and runs that were stopped in between."""
    config, pair, alone = tiny_config(**SETTINGS), tmp_path / "pair", tmp_path / "alone"
    assert train_replicas(config, pair, 2) is Outcome.FINISHED
    assert sorted(path.name for path in pair.iterdir()) == ["seed_5", "seed_6"]
    train_and_evaluate(dataclasses.replace(config, seed=6), alone)
    for ours, theirs in zip(arrays(pair / "seed_6"), arrays(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(losses(pair / "seed_6"), losses(alone), rtol=1e-4)
    ours, theirs = RunFolder(pair / "seed_6"), RunFolder(alone)
    assert to_dict(ours.saved_config()) == to_dict(theirs.saved_config())
    close = pytest.approx(theirs.read_summary()["eval/log_likelihood"], rel=1e-3)
    assert ours.read_summary()["eval/log_likelihood"] == close

    stopped, plain = tmp_path / "stopped", ProgressReporter.report

    def interrupt(self, row):
        plain(self, row)
        if row["step"] == 14:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressReporter, "report", interrupt)
        assert train_replicas(config, stopped, 2) is Outcome.INTERRUPTED
    assert [kaem.load_run(folder).step for folder in stopped.iterdir()] == [14] * 2
    monkeypatch.setattr(replicas, "train_and_evaluate", lambda *_: Outcome.FINISHED)  # of which there was enough
    assert train_replicas(config, stopped, 2) is Outcome.FINISHED
    for folder in pair.iterdir():
        jax.tree.map(np.testing.assert_array_equal, arrays(stopped / folder.name), arrays(folder))
        assert losses(stopped / folder.name) == losses(folder)
    with pytest.raises(RunError, match="holds another run: optimizer"):
        train_replicas(tiny_config(**SETTINGS | {"optimizer__clip_norm": 1.0}), pair, 2)
    with pytest.raises(RunError, match="seed_5, seed_6 hold runs and seed_7 none"):
        train_replicas(config, pair, 3)
    assert not (pair / "seed_7").exists()
    shutil.rmtree(pair / "seed_6" / "checkpoints" / "20")  # as of a job that was killed between two saves
    assert train_replicas(config, pair, 2) is Outcome.FINISHED
    jax.tree.map(np.testing.assert_array_equal, arrays(pair / "seed_6"), arrays(stopped / "seed_6"))
    shutil.rmtree(pair / "seed_6" / "checkpoints")  # as of one that was killed between two first saves
    for path in ("summary.json", "metrics.jsonl"):
        (pair / "seed_6" / path).unlink()
    assert train_replicas(config, pair, 2) is Outcome.FINISHED
    jax.tree.map(np.testing.assert_array_equal, arrays(pair / "seed_6"), arrays(stopped / "seed_6"))


def test_what_is_refused_and_which_run_diverged(tmp_path, monkeypatch):
    for settings, message in (
        ({"data__storage": "host"}, "data.storage='host'"),
        ({"prior__kind": "clustered", "train__refit": True}, "of one stage"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_replicas(tiny_config(**SETTINGS | settings), tmp_path / "run", 2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="for one process"):
        train_replicas(tiny_config(**SETTINGS), tmp_path / "run", 2)
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    start = replicas._start

    def broken(config, *given):
        state = start(config, *given)
        bad = {"decoder": jax.tree.map(lambda leaf: leaf * np.nan, state.params["decoder"])}
        return dataclasses.replace(state, params=state.params | (bad if config.seed == 6 else {}))

    monkeypatch.setattr(replicas, "_start", broken)
    with pytest.raises(DivergedError, match="run 1 of 2: train/"):
        train_replicas(tiny_config(**SETTINGS), tmp_path / "run", 2)
