"""Folders that are in use, damaged, full, or of somebody else: nothing is lost, and the sentence says what to do."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import kaem_jax as kaem
from kaem_jax.app.cli import train
from kaem_jax.app.data import Dataset, Field, Table, Text, load_dataset
from kaem_jax.app.experiment.experiment import Checkpointing, Experiment
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.load import check_is_of_run
from kaem_jax.app.runs.lock import check_folder, claimed, only_run_in
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.errors import RunError
from kaem_jax.files.writing import replacing
from kaem_jax.tables.column import Column
from tests.app.conftest import NUM_STEPS, TINY, command, contents, copy_of, run
from tests.app.test_resume import assert_same_run
from tests.app.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("as_users_run_it")


@pytest.fixture(scope="module")
def digits():
    return load_dataset(tiny_config().data)


HOLD = """
import pathlib, sys, time
from kaem_jax.app.runs.lock import only_run_in
with only_run_in(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_dead(tmp_path, sentence):
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        code, line = sentence(train.main, *TINY, "--workdir", folder)
        assert code == 2
        assert f"{folder} is in use by another run" in line
        assert contents(folder) == {}
    finally:
        holder.kill()
        holder.communicate()
    # The system releases the lock of a dead process.
    with only_run_in(folder), pytest.raises(RunError, match="in use"), only_run_in(folder):
        pass


def test_what_another_run_wrote_before_the_lock_was_had_is_seen(tmp_path, refuses, monkeypatch, digits):
    @contextlib.contextmanager
    def late(root):
        RunFolder(root).write_config(tiny_config(likelihood__sigma=0.7), digits)
        yield

    monkeypatch.setattr("kaem_jax.app.runs.lock.only_run_in", late)
    with (
        refuses(RunError, "likelihood.sigma was 0.7"),
        claimed(RunFolder(tmp_path / "run"), tiny_config(), digits, overwrite=False),
    ):
        pass


WRITTEN = (
    "metrics.jsonl", "summary.json", "evaluation.json", "evaluation_40.json", "latents.json", "report.html",
    "checkpoints/40/x", "figures/x", "tensorboard/x", "export/x", "damaged/x",
)  # fmt: skip


def write(folder, *names, content="{}"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_overwriting_leaves_nothing_of_a_run_and_all_of_the_users(tmp_path, monkeypatch, digits):
    """Numbers, curves or a classifier of before would be taken for those of the new run."""
    folder = RunFolder(tmp_path / "run")
    write(folder.root, *WRITTEN, "classifier.npz", "notes.txt", "data/x.csv")
    write(folder.root, "config.json", content='{"config": {}, "data_shape": [8, 8]}')
    rmtree, is_known = shutil.rmtree, []  # what fails meanwhile leaves what is known as a run
    monkeypatch.setattr(shutil, "rmtree", lambda path: is_known.append(folder.config.exists()) or rmtree(path))
    with claimed(folder, tiny_config(), digits, overwrite=True):
        assert (all(is_known), len(is_known)) == (True, 5)
        assert {str(path) for path in contents(folder.root)} == {"notes.txt", "data/x.csv"}


def test_overwriting_deletes_nothing_that_no_run_wrote(tmp_path, sentence):
    mine = tmp_path / "paper"
    write(mine, "figures/one.png", "classifier.npz")
    write(mine, "config.json", content='{"title": "mine"}')
    before = contents(mine)
    code, said = sentence(train.main, *TINY, "--workdir", mine, "--overwrite")
    assert (code, said.partition(", which")[0]) == (2, f"error: --overwrite would delete {mine / 'config.json'}")
    assert contents(mine) == before


def test_training_replaces_no_numbers_of_a_run_that_it_cannot_continue(tmp_path, digits, refuses):
    """Rows of another program, or a finished run whose checkpoints were deleted to make room."""
    given = tiny_config(), digits.fingerprint()
    for name in ("metrics.jsonl", "figures/samples.png"):
        folder = RunFolder(tmp_path / name)
        write(folder.root, name, content='{"step": 10, "loss": 0.5}\n')
        with refuses(RunError, "exists but ", "config.json does not"):
            check_folder(folder, *given)
        with refuses(RunError, "--overwrite would delete ", ", which no run wrote"):
            check_folder(folder, *given, overwrite=True)
    thinned = RunFolder(tmp_path / "thinned")
    thinned.root.mkdir()
    thinned.write_config(given[0], digits)
    check_folder(thinned, *given)  # killed before its first checkpoint
    thinned.metrics.write_text('{"step": 40, "train/loss": 1.0}\n')
    check_folder(thinned, *given)  # killed while it wrote its first checkpoint, of step 20
    thinned.metrics.write_text('{"step": 41, "train/loss": 1.0}\n{"step": 40, "eval/ess": 1.0}\n')
    (thinned.checkpoints / "60.bak").mkdir(parents=True)
    with refuses(RunError, "holds results of 41 steps but ", "checkpoints no checkpoint"):
        check_folder(thinned, *given)
    thinned.metrics.unlink()
    thinned.summary.write_text('{"step": 10, "eval/log_likelihood": 1.0, "eval/ess": 2.0}')
    with refuses(RunError, "holds results of 0 steps but ", "checkpoints no checkpoint"):
        check_folder(thinned, *given)
    (thinned.checkpoints / "60").mkdir()
    check_folder(thinned, *given)


def test_an_error_that_may_pass_is_no_damage(finished, tmp_path, monkeypatch, capsys):
    """Of a file system that does not answer, or a memory that is too small: every checkpoint stays where it is."""
    folder = copy_of(finished, tmp_path)
    before = contents(folder)
    for error, raised, said in (
        (OSError(errno.ESTALE, "Stale file handle"), OSError, "Stale"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), RuntimeError, "Out of"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
        opened = Checkpoints(folder / "checkpoints", Checkpointing(keep_last=1, keep_best=1))
        with opened as checkpoints, pytest.raises(raised, match=said):
            checkpoints.restore_newest(lambda step: None)
    assert contents(folder) == before


def test_odd_things_beside_checkpoints_block_nothing(finished, tmp_path):
    """A copied step and files; a step that was renamed is refused."""
    folder = copy_of(finished, tmp_path, "summary.json")
    steps = folder / "checkpoints"
    shutil.copytree(steps / str(NUM_STEPS), steps / f"{NUM_STEPS} (copy)")
    write(folder, "checkpoints/damaged", "checkpoints/notes.txt", content="x")
    assert kaem.load_run(folder).step == NUM_STEPS
    shutil.copytree(steps / str(NUM_STEPS), steps / str(NUM_STEPS + 20))
    with pytest.raises(RunError, match=f"it holds step {NUM_STEPS}"):
        kaem.load(folder)


def test_data_at_a_relative_path_are_found_from_another_folder(tmp_path, monkeypatch, digits):
    folder, here, there = RunFolder(tmp_path / "run"), tmp_path / "here", tmp_path / "there"
    for place, value in ((here, np.zeros), (there, np.ones)):  # other data at the same relative path
        (place / "prepared").mkdir(parents=True)
        np.savez(place / "a.npz", images=value((4, 2, 2)))
    for name, setting in (("npz", {"data__path": "a.npz"}), ("mnist", {"data__dir": "prepared"})):
        monkeypatch.chdir(here)
        folder.write_config(tiny_config(data__name=name, **setting), digits)
        monkeypatch.chdir(there)
        ((field, value),) = setting.items()
        assert getattr(folder.saved_config().data, field.removeprefix("data__")) == str(here / value)
    monkeypatch.chdir(here)
    folder.write_config(tiny_config(data__name="npz", data__path="a.npz"), digits)
    (here / "a.npz").unlink()  # as on another machine
    assert folder.saved_config().data.path == "a.npz"


def test_data_of_other_scales_columns_or_tokens_are_not_those_of_a_run(tmp_path, capsys):
    """Standardised anew, they would be evaluated as if they were; only a last digit may differ, with a warning.

    A few rows that were added change a scale by a percent.
    """
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()

    def data(form, x=0.0):
        return Dataset(np.full((4, 2), x, np.float32), np.zeros((1, 2), np.float32), form=form)

    height, colour = Column("height", mean=170.0, scale=10.0), Column("colour", ("blue", "red"))
    forms = [
        Table((height, colour)), Table((colour, height)), Table((dataclasses.replace(height, scale=11.0), colour)),
        Table((height, dataclasses.replace(colour, categories=("blue", "green")))), Field((1.0,), (2.0,)),
        Table((dataclasses.replace(height, mean=170.2), colour)), Field((1.01,), (2.0,)),
        *(Text("word", 2, tokens) for tokens in (("a", "b"), ("b", "a"))),
    ]  # fmt: skip
    for ours in forms:
        folder.write_config(Experiment(), data(ours))
        for theirs in forms:
            if theirs is ours:
                check_is_of_run(folder, data(theirs))
            else:
                with pytest.raises(RunError, match="other columns, categories, scales or tokens"):
                    check_is_of_run(folder, data(theirs))
    folder.write_config(Experiment(), data(forms[0]))
    assert not capsys.readouterr().err
    check_is_of_run(folder, data(Table((dataclasses.replace(height, mean=170.0 * (1 + 1e-9)), colour)), x=1e-6))
    assert "warning: the training data are not those of" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_while_a_run_starts_ends_it_with_75(tmp_path):
    """Before the first step there is nothing to save, but the promise of the exit code holds."""
    process = subprocess.Popen(command(tmp_path / "run", train__num_steps=2000), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    # The handlers are there before anything heavy is imported, which the program shows by mapping its library.
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    while "jaxlib" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=600)
    assert process.returncode == 75, output
    assert "interrupted" in output or "saved step" in output
    assert "Traceback" not in output


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A machine that loses its power would otherwise have an empty file in place of the old one."""
    order, rename = [], pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, to: order.append("named") or rename(self, to))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == [str(temporary), "named"]


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_costs_no_step_that_was_saved(finished, tmp_path):
    """A real limit, of the size of files: a run ends with 74, and with room again it ends where others end."""
    workdir = copy_of(finished, tmp_path, "60", "summary.json")
    limited = ["bash", "-c", 'ulimit -f 4; KAEM_JAX_CACHE=off exec "$@"', "bash", *command(workdir)]
    process = subprocess.run(limited, capture_output=True, text=True, timeout=600)
    assert process.returncode == 74, process.stderr
    assert "no space left" in process.stderr
    assert "Traceback" not in process.stderr
    process = run(workdir)
    assert process.returncode == 0, process.stderr
    assert "resuming" in process.stderr
    assert_same_run(workdir, finished[0])
