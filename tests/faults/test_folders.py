"""Runs in folders that are in use, damaged, full, or none."""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from filelock import FileLock

import kaem_jax as kaem
from kaem_jax.cli import encode, report, train
from kaem_jax.data import Dataset, Field, Table, Text, load_dataset
from kaem_jax.data.columns import Column
from kaem_jax.errors import RunError, TransientReadError
from kaem_jax.files import moved_away
from kaem_jax.runs.checkpoints import Checkpoints, _Best, describe_damage
from kaem_jax.runs.lock import only_run_in
from kaem_jax.runs.open_data import check_is_of_run
from kaem_jax.runs.resume import (
    check_folder,
    check_folder_again,
    check_space,
    prepare,
    warn_of_other_bits,
)
from kaem_jax.runs.run import load_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.runs.experiment import Checkpointing, Experiment
from kaem_jax.errors import ConfigError
from kaem_jax.data.settings import DataSettings
from kaem_jax.train import _prepared
from tests.training.conftest import NUM_STEPS, ROOT, command, finished, run  # noqa: F401
from tests.training.test_loop import tiny_config
from tests.training.tiny import tiny_dict

# Of the library that reads experiments, on Python 3.11.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

TINY = ["--config", str(ROOT / "tests" / "training" / "tiny.py")]


@pytest.fixture(autouse=True)
def _as_users_run_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def sentence(capsys):
    """Runs a command in this process; returns its exit code and the one line that it prints on standard error."""

    def call(main, *arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return code, lines[0]

    return call


HOLD = """
import pathlib, sys, time
from kaem_jax.data import load_dataset
from kaem_jax.runs.lock import only_run_in
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
        assert f"{folder} is in use by process {holder.pid} on " in line
        assert not (folder / "config.json").exists()
    finally:
        holder.kill()
        holder.communicate()
    with only_run_in(folder):  # the system releases the lock of a dead process
        assert json.loads((folder / ".lock.json").read_text())["pid"] == os.getpid()
        with pytest.raises(RunError, match="in use"), only_run_in(folder):
            pass
    assert not (folder / ".lock.json").exists()


def test_the_lock_of_another_machine_is_waited_for(tmp_path, monkeypatch, capsys):
    """On a network file system it outlives the machine for a while; that of a process of this one never does."""
    held = FileLock(tmp_path / ".lock")
    asked, acquire = [], FileLock.acquire

    def acquired(self, timeout, **options):
        asked.append(timeout)
        if timeout:
            held.release()
        return acquire(self, timeout=timeout, **options)

    monkeypatch.setattr(FileLock, "acquire", acquired)
    here, boot = socket.gethostname(), pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cases = (
        ({"host": "elsewhere"}, True),  # as earlier versions wrote it
        ({"host": here}, False),
        ({"host": here, "boot": boot}, False),
        ({"host": here, "boot": "of a pod that had this name"}, True),
    )
    for machine, waits in cases:
        acquire(held, timeout=0)
        (tmp_path / ".lock.json").write_text(json.dumps(machine | {"pid": 1, "since": "then"}))
        asked.clear()
        refused = contextlib.nullcontext() if waits else pytest.raises(RunError, match="in use")
        with refused, only_run_in(tmp_path):
            pass
        assert asked == ([0, 120] if waits else [0])
        said = f"on {machine['host']} since then; waiting up to 120 seconds"
        assert (said in capsys.readouterr().err) is waits
        held.release(force=True)


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, ""), OSError(errno.EOPNOTSUPP, "")])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys, error):
    def acquire(self, **_):
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with only_run_in(tmp_path / "run"):
        assert "has no locks; make sure that no other run uses this folder" in capsys.readouterr().err


def test_overwriting_deletes_nothing_that_no_run_wrote(tmp_path, sentence):
    """A folder of the user's with names that a run has too; and what was a run, however damaged, may go."""
    mine = tmp_path / "paper"
    (mine / "figures").mkdir(parents=True)
    (mine / "figures" / "one.png").write_text("mine")
    (mine / "config.json").write_text('{"title": "mine"}')
    code, said = sentence(train.main, *TINY, "--workdir", mine, "--overwrite")
    assert (code, said.partition(", which")[0]) == (2, f"error: --overwrite would delete {mine / 'config.json'}")
    assert (mine / "figures" / "one.png").read_text() == "mine"
    for name, content in (
        ("metrics.jsonl", '{"step": 1, "train/loss": '),
        ("config.json", '{"config": {}, "data_shape": [8, 8]}'),
    ):
        run_folder = RunFolder(tmp_path / name)
        run_folder.root.mkdir()
        (run_folder.root / name).write_text(content)
        run_folder.figures.mkdir()
        check_folder(run_folder, Config(), 0, overwrite=True)
        prepare(run_folder, overwrite=True)
        assert list(run_folder.root.iterdir()) == []
    for names in ([], ["7"], ["7.orbax-checkpoint-tmp"]):  # killed before the first row
        started = RunFolder(tmp_path / f"started_{len(names)}_{''.join(names)}")
        for name in ("", *names):
            (started.checkpoints / name).mkdir(parents=True)
        (started.root / "damaged").write_text("a file of the user's")
        check_folder(started, Config(), 0, overwrite=True)
        prepare(started, overwrite=True)
        assert [path.name for path in started.root.iterdir()] == ["damaged"]


def test_overwriting_leaves_nothing_of_the_run(tmp_path):
    """Numbers, curves or a model of the run of before would be taken for those of the new one."""
    folder = RunFolder(tmp_path / "run")
    files = ("metrics.jsonl", "summary.json", "evaluation.json", "evaluation_40.json", "latents.json", "report.html")
    for name in ("checkpoints", "figures", "tensorboard", "profile", "export", "damaged"):
        (folder.root / name).mkdir(parents=True)
        (folder.root / name / "file").touch()
    for name in files:
        (folder.root / name).write_text("{}")
    folder.config.write_text('{"config": {}, "data_shape": [8, 8]}')
    prepare(folder, overwrite=True)
    assert list(folder.root.iterdir()) == []


def test_overwriting_empties_folders_that_lie_elsewhere(tmp_path):
    """A link was passed over, and the run of the new settings went on from the old weights."""
    run_folder, scratch = RunFolder(tmp_path / "run"), tmp_path / "scratch"
    (scratch / "40" / "state").mkdir(parents=True)
    (scratch / "note").write_text("x")
    (scratch / "41").symlink_to(tmp_path)
    run_folder.root.mkdir()
    run_folder.checkpoints.symlink_to(scratch)
    run_folder.figures.symlink_to(tmp_path / "nowhere")
    run_folder.config.write_text('{"config": {}, "data_shape": [8, 8]}')
    check_folder(run_folder, Config(), 0, overwrite=True)
    prepare(run_folder, overwrite=True)
    assert list(scratch.iterdir()) == []
    assert run_folder.checkpoints.is_symlink()
    assert run_folder.root.is_dir()


def test_what_cannot_be_deleted_keeps_the_run_known(tmp_path, monkeypatch):
    run_folder = RunFolder(tmp_path / "run")
    (run_folder.checkpoints / "40").mkdir(parents=True)
    run_folder.config.write_text('{"config": {}, "data_shape": [8, 8]}')

    def fail(*_, ignore_errors=False, **__):
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied", "40")

    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(PermissionError):
        prepare(run_folder, overwrite=True)
    assert run_folder.config.exists()


@pytest.mark.parametrize(
    ("of_a_run", "overwrite", "is_kept"),
    [("", True, True), ("config", True, False), ("losses", True, False), ("config", False, True)],
)
def test_only_overwriting_a_run_deletes_its_classifier(tmp_path, of_a_run, overwrite, is_kept):
    folder, config = RunFolder(tmp_path / "run"), Config.from_dict(tiny_dict())
    dataset = load_dataset(config.data)
    folder.root.mkdir()
    folder.classifier.write_text("mine")
    if of_a_run == "config":
        folder.write_config(config, dataset)
    elif of_a_run == "losses":  # killed before it wrote its config
        folder.metrics.write_text('{"step": 10, "train/loss": 0.5}\n')
    with _prepared(folder, config, dataset, overwrite, num_bytes=0):
        assert folder.classifier.exists() == is_kept
    assert [path.name for path in folder.root.iterdir() if "classifier" in path.name] == ["classifier.npz"] * is_kept


def test_a_refusal_keeps_the_classifier_of_the_run_that_is_not_overwritten(tmp_path, refuses):
    values = tiny_dict()
    values["evaluation"] |= {"samples_every_steps": 10, "features": "no_module:nothing"}
    folder, config = RunFolder(tmp_path / "run"), Config.from_dict(values)
    dataset = load_dataset(config.data)
    folder.root.mkdir()
    folder.write_config(config, dataset)
    folder.classifier.write_text("mine")
    with refuses(ConfigError, "no_module"), _prepared(folder, config, dataset, overwrite=True, num_bytes=0):
        pass
    assert folder.classifier.read_text() == "mine"


def test_an_error_that_may_pass_is_no_damage(finished, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Of a file system over a network: the checkpoint stays where it is, and so do all that would be deleted."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    error = OSError(errno.ESTALE, "Stale file handle")
    before = sorted(path.name for path in (folder / "checkpoints").iterdir())
    with Checkpoints(folder / "checkpoints", Checkpointing(keep_last=1, keep_best=1)) as checkpoints:
        monkeypatch.setattr(checkpoints, "_read_meta", lambda step: (_ for _ in ()).throw(error))
        with pytest.raises(TransientReadError, match="nothing was changed"):
            checkpoints.restore_newest(None)
        with pytest.raises(TransientReadError, match="nothing was changed"):
            checkpoints.best_step  # noqa: B018
        steps = [types.SimpleNamespace(step=step) for step in checkpoints.steps]
        assert _Best(checkpoints, 1).should_preserve(steps, context=None) == [True] * len(steps)
        # Nor is a memory that is too small for two states.
        full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        monkeypatch.setattr(checkpoints, "_read_meta", lambda step: (_ for _ in ()).throw(full))
        with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
            checkpoints.restore_newest(None)
    assert "no checkpoint is deleted now" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == before
    monkeypatch.setattr(Checkpoints, "_read_meta", lambda self, step: (_ for _ in ()).throw(error))
    for step in ("last", "best"):
        with pytest.raises(TransientReadError, match="cannot be read now"):
            load_run(folder, step)


def test_a_file_that_was_moved_away_comes_back(tmp_path):
    """Also where the process that had moved it was killed."""
    path, aside = tmp_path / "a.npz", tmp_path / ".before.a.npz"
    for there in (path, aside):
        there.write_text("mine")
        with contextlib.suppress(KeyboardInterrupt), moved_away(path):
            path.write_text("half")
            raise KeyboardInterrupt
        assert (path.read_text(), aside.exists()) == ("mine", False)
        path.unlink()
    path.write_text("mine")
    with moved_away(path):
        path.write_text("new")
    assert (path.read_text(), aside.exists()) == ("new", False)


def test_a_run_that_goes_on_elsewhere_is_said_to(tmp_path, capsys):
    folder, config = RunFolder(tmp_path / "run"), Config.from_dict(tiny_dict())
    folder.write_config(config, load_dataset(config.data))
    warn_of_other_bits(folder, config)
    assert capsys.readouterr().err == ""
    saved = json.loads(folder.config.read_text())
    saved["versions"]["jax"] = "0.1"
    saved["device"]["kind"] = "another"
    folder.config.write_text(json.dumps(saved))
    warn_of_other_bits(folder, config)
    assert f"perhaps not bit for bit: jax 0.1 -> {jax.__version__}, device kind" in capsys.readouterr().err
    folder.write_config(config, load_dataset(config.data))
    saved = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps(saved | {"revision": 40 * "a"}))
    elsewhere = tiny_config(parallel__data=7, data__storage="host")
    warn_of_other_bits(folder, elsewhere)
    said = capsys.readouterr().err
    assert f"revision {40 * 'a'} -> " in said
    assert "parallel.data " in said
    assert "data.storage auto -> host" in said


def test_what_another_run_wrote_while_the_lock_was_waited_for_is_seen(tmp_path, refuses, monkeypatch):
    folder, config = RunFolder(tmp_path / "run"), Config.from_dict(tiny_dict())
    dataset = load_dataset(config.data)

    @contextlib.contextmanager
    def waited(root):
        root.mkdir(exist_ok=True)
        RunFolder(root).write_config(tiny_config(likelihood__sigma=0.7), dataset)
        yield

    with _prepared(folder, config, dataset, overwrite=False, num_bytes=0):
        pass
    monkeypatch.setattr("kaem_jax.train.only_run_in", waited)
    with (
        refuses(RunError, "likelihood.sigma was 0.7"),
        _prepared(folder, config, dataset, overwrite=False, num_bytes=0),
    ):
        pass
    check_folder_again(folder, config, dataset.fingerprint(), overwrite=True)


def test_training_replaces_no_numbers_of_a_run_that_it_cannot_continue(tmp_path):
    """Rows of another program, or a finished run whose checkpoints were deleted to make room."""
    rows = '{"step": 10, "loss": 0.5}\n'
    for name in ("metrics.jsonl", "summary.json"):
        folder = RunFolder(tmp_path / name)
        folder.root.mkdir()
        (folder.root / name).write_text(rows)
        with pytest.raises(RunError, match=f"{name} exists but .*config.json does not"):
            check_folder(folder, Config(), 0)
        with pytest.raises(RunError, match=f"--overwrite would delete .*{name}, which no run wrote"):
            check_folder(folder, Config(), 0, overwrite=True)
    paper = RunFolder(tmp_path / "paper")
    paper.figures.mkdir(parents=True)
    check_folder(paper, Config(), 0)  # an empty folder is nothing
    (paper.figures / "samples.png").write_text("mine")
    with pytest.raises(RunError, match=r"figures exists but .*config.json does not"):
        check_folder(paper, Config(), 0)
    thinned = RunFolder(tmp_path / "thinned")
    thinned.root.mkdir()
    dataset = load_dataset(Config().data)
    thinned.write_config(Config(), dataset)
    check_folder(thinned, Config(), dataset.fingerprint())  # killed before its first checkpoint
    limit = 2 * Config().checkpoint.every_steps
    thinned.metrics.write_text(f'{{"step": {limit}, "train/loss": 1.0}}\n')
    check_folder(thinned, Config(), dataset.fingerprint())  # killed while it wrote its first checkpoint
    thinned.metrics.write_text(f'{{"step": {limit + 1}, "train/loss": 1.0}}\n{{"step": {limit}, "eval/ess": 1.0}}\n')
    (thinned.checkpoints / "60.bak").mkdir(parents=True)
    with pytest.raises(RunError, match=f"metrics.jsonl has {limit + 1} steps but .*checkpoints no checkpoint"):
        check_folder(thinned, Config(), dataset.fingerprint())
    (thinned.checkpoints / "60").mkdir()
    check_folder(thinned, Config(), dataset.fingerprint())
    (thinned.checkpoints / "60").rmdir()
    thinned.metrics.unlink()
    thinned.summary.write_text('{"step": 10, "eval/log_likelihood": 1.0, "eval/ess": 2.0}')
    with pytest.raises(RunError, match="holds a finished run without its checkpoints"):
        check_folder(thinned, Config(), dataset.fingerprint())
    check_folder(thinned, Config(), dataset.fingerprint(), overwrite=True)


def test_folders_that_cannot_be_one_are_refused_in_one_sentence(tmp_path, sentence):
    (tmp_path / "file").write_text("mine")
    for name in ("checkpoints", "figures", "tensorboard"):
        (tmp_path / f"with_{name}").mkdir()
        (tmp_path / f"with_{name}" / name).write_text("mine")
    for name in ("metrics.jsonl", "evaluation.json", "report.html"):
        (tmp_path / f"with_{name}" / name).mkdir(parents=True)
    cases = [
        ("/etc/passwd/x", [], "Not a directory"),
        ("/proc/none/x", [], "No such file"),
        (tmp_path / ("n" * 300), [], "File name too long"),
        (tmp_path / "file", [], "is a file; give a folder"),
        (tmp_path / "file", ["--overwrite"], "is a file; give a folder"),
        *((tmp_path / f"with_{name}", ["--overwrite"], f"{name} is a file") for name in ("checkpoints", "figures")),
        (tmp_path / "with_tensorboard", [], "tensorboard is a file"),
        (tmp_path / "with_metrics.jsonl", [], "metrics.jsonl is a folder"),
        (tmp_path / "with_report.html", ["--overwrite"], "report.html is a folder"),
    ]
    for folder, flags, part in cases:
        code, line = sentence(train.main, *TINY, "--workdir", folder, *flags)
        assert (code, part in line) == (2, True), (folder, code, line)
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "with_figures" / "figures").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk_has_a_code_of_its_own(tmp_path, sentence, monkeypatch):
    """Before training by the free space, and in its middle by what the system says."""
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free)
        code, line = sentence(train.main, *TINY, "--workdir", tmp_path / "a")
    assert code == 74
    assert "1 MiB and 0 MiB are free" in line
    # A run that --overwrite would replace is still there, and what of it would be deleted counts as room.
    (tmp_path / "a" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 5, "train/loss": 1.0}\n')
    (tmp_path / "a" / "checkpoints" / "old").write_bytes(bytes(1000))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free)
        assert sentence(train.main, *TINY, "--overwrite", "--workdir", tmp_path / "a")[0] == 74
    assert (tmp_path / "a" / "metrics.jsonl").exists()
    assert (tmp_path / "a" / "checkpoints" / "old").exists()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free)
        check_space(RunFolder(tmp_path / "a"), 1500, overwrite=True)
        with pytest.raises(OSError, match="0 MiB are free"):
            check_space(RunFolder(tmp_path / "a"), 1500)
    with monkeypatch.context() as patch:

        def fail(self, *args, **kwargs):
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9278 bytes: No space left on device")

        patch.setattr(Checkpoints, "save", fail)
        assert train.main([*TINY, "--workdir", str(tmp_path / "b")]) == 74
    error = OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("kaem_jax.training.log.MetricsFile.write", lambda self, row: (_ for _ in ()).throw(error))
        assert train.main([*TINY, "--workdir", str(tmp_path / "c")]) == 74


def test_metadata_of_a_step_that_are_no_object_are_named(finished, tmp_path, sentence):  # noqa: F811
    """The library of checkpoints passes over metadata that are no JSON, and stopped at a list with a traceback."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    metadata = newest / "_CHECKPOINT_METADATA"
    for content in ("[1]", "true", '"a"', "3", "null"):
        metadata.write_text(content)
        code, line = sentence(encode.main, "--workdir", folder, "--out", tmp_path / "z.csv")
        assert (code, f"{metadata} is damaged: it holds" in line) == (2, True), line
    shutil.move(newest, tmp_path / newest.name)
    assert load_run(folder).step < int(newest.name)


def test_reads_that_are_on_their_way_end_before_the_sentence(finished, tmp_path, capfd, refuses):  # noqa: F811
    """The library reads all arrays at once; those that found its loop closed printed a traceback each, most times."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (arrays,) = (newest / "state" / "d").iterdir()
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 16
    arrays.write_bytes(content)
    capfd.readouterr()
    for _ in range(8):
        with refuses(RunError, f"{newest} cannot be read: "):
            load_run(folder)
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_what_only_authors_of_a_library_can_read_is_left_out():
    said = "Encountered error while reading array index: (slice(0, 8, 1)). See full TensorStore details: <bound method"
    assert describe_damage(ValueError(said)) == "Encountered error while reading array index: (slice(0, 8, 1))."
    assert describe_damage(ValueError("x" * 300 + "\nmore")) == "x" * 200


@pytest.mark.slow
def test_files_of_a_wrong_shape_are_named(finished, tmp_path, sentence):  # noqa: F811
    """JSON of another shape in each file that a command reads; a summary can be computed again, so it is not missed."""
    for name in ("config.json", "evaluation.json", "latents.json", "summary.json"):
        for content in (
            "",
            "null",
            "3",
            "true",
            '"a"',
            "{}",
            "[3]",
            '{"config": 3}',
            '{"step": 1, "metrics": [1]}',
            "\xff",
        ):
            folder = tmp_path / f"{name} {len(list(tmp_path.iterdir()))}"
            shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("checkpoints"))
            (folder / name).write_bytes(content.encode("latin1"))
            if name == "summary.json":
                assert RunFolder(folder).read_summary() is None
                assert report.main(["--workdir", str(folder)]) == 0
            else:
                code, line = sentence(report.main, "--workdir", folder)
                assert (code, name in line) == (2, True), (name, content, line)


@pytest.mark.slow
def test_a_run_with_a_damaged_summary_is_not_finished(finished, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text("")
    process = run(folder)
    assert process.returncode == 0, process.stderr
    assert "is finished at step" not in process.stderr
    assert json.loads((folder / "summary.json").read_text()) == json.loads(before)


@pytest.mark.slow
def test_odd_things_beside_checkpoints_block_nothing(finished, tmp_path):  # noqa: F811
    """A copied step, a renamed step, a file named `damaged`, and a newest checkpoint without its arrays."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    expected = kaem.load(folder)
    steps = folder / "checkpoints"
    shutil.copytree(steps / str(NUM_STEPS), steps / f"{NUM_STEPS} (copy)")
    (steps / "damaged").write_text("x")
    (folder / "damaged").write_text("x")
    (steps / "notes.txt").write_text("x")
    again = kaem.load(folder)
    assert again.step == expected.step
    jax.tree.map(np.testing.assert_array_equal, expected.params, again.params)
    shutil.copytree(steps / str(NUM_STEPS), steps / str(NUM_STEPS + 20))
    with pytest.raises(RunError, match=f"it holds step {NUM_STEPS}"):
        kaem.load(folder)
    (folder / "summary.json").unlink()
    process = run(folder)
    assert process.returncode == 0, process.stderr
    assert (folder / "damaged-1" / str(NUM_STEPS + 20)).is_dir()
    assert (folder / "damaged").read_text() == "x"


def test_the_best_checkpoint_is_the_one_with_the_highest_likelihood(finished):  # noqa: F811
    folder = RunFolder(finished[0])
    rows = {row["step"]: row for row in map(json.loads, folder.metrics.read_text().splitlines())}
    with Checkpoints(folder.checkpoints, None) as checkpoints:
        steps = checkpoints.steps
        assert checkpoints.best_step == max(steps, key=lambda step: rows[step]["eval/log_likelihood"])
        assert checkpoints.best_steps(steps, len(steps)) == sorted(
            steps, key=lambda step: rows[step]["eval/log_likelihood"], reverse=True
        )


@pytest.mark.slow
def test_other_data_at_the_same_path_are_noticed(tmp_path, sentence):
    """And the same data at another path are not: a folder may move between two runs of the command."""
    pixels = np.random.default_rng(0).random((64, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "a.npz", images=pixels)
    arguments = [*TINY, "--workdir", tmp_path / "run", "--config.train.num_steps=20", "--config.data.name=npz"]
    assert train.main([*map(str, arguments), f"--config.data.path={tmp_path / 'a.npz'}"]) == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data_path"] == str(tmp_path / "a.npz")
    shutil.move(tmp_path / "a.npz", tmp_path / "b.npz")
    (tmp_path / "run" / "summary.json").unlink()
    assert train.main([*map(str, arguments), f"--config.data.path={tmp_path / 'b.npz'}"]) == 0
    pixels[0, 0, 0] += 0.1
    np.savez(tmp_path / "b.npz", images=pixels[::-1])
    code, line = sentence(train.main, *arguments, f"--config.data.path={tmp_path / 'b.npz'}")
    assert (code, "holds a run on other data" in line) == (2, True), line


def test_data_at_a_relative_path_are_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    values = tiny_dict() | {"name": "moved"}
    values["data"] |= {"name": "npz", "path": "a.npz"}
    config = Config.from_dict(values)
    monkeypatch.chdir(tmp_path / "here")
    np.savez("a.npz", images=np.zeros((4, 2, 2)))
    folder = RunFolder(tmp_path / "run")
    folder.write_config(config, load_dataset(config.data))
    monkeypatch.chdir(tmp_path / "there")
    np.savez("a.npz", images=np.ones((4, 2, 2)))  # other data at the same relative path
    assert folder.saved_config().data.path == str(tmp_path / "here" / "a.npz")
    with monkeypatch.context() as patch:  # or in a folder that one may not enter
        of_all = os.stat

        def denied(path, *given, **options):
            if str(path).endswith("a.npz"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return of_all(path, *given, **options)

        patch.setattr(os, "stat", denied)
        assert folder.saved_config().data.path == "a.npz"
    (tmp_path / "here" / "a.npz").unlink()  # as on another machine
    assert folder.saved_config().data.path == "a.npz"
    # So are prepared data.
    values = tiny_dict()
    values["data"] |= {"name": "mnist", "dir": "prepared"}
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "prepared").mkdir()
    folder.write_config(Config.from_dict(values), load_dataset(DataSettings()))
    monkeypatch.chdir(tmp_path / "there")
    assert folder.saved_config().data.dir == str(tmp_path / "here" / "prepared")


def test_data_of_other_scales_columns_or_tokens_are_not_those_of_a_run(tmp_path, capsys):
    """Standardised anew, they would be judged as if they were; only a last digit may differ, with a warning.

    A few rows that were added change a scale by a percent.
    """
    folder = RunFolder(tmp_path / "run")

    def data(form, x=0.0):
        return Dataset(np.full((4, 2), x, np.float32), np.zeros((1, 2), np.float32), form=form)

    height, colour = Column("height", mean=170.0, scale=10.0), Column("colour", ("blue", "red"))
    forms = [
        Table((height, colour)), Table((colour, height)), Table((dataclasses.replace(height, scale=11.0), colour)),
        Table((height, dataclasses.replace(colour, categories=("blue", "green")))), Field((1.0,), (2.0,)),
        Table((dataclasses.replace(height, mean=170.2), colour)), Field((1.01,), (2.0,)),
        *(Text("word", 2, tokens) for tokens in (("a", "b"), ("b", "a"), ("a", "b", "c"))),
    ]  # fmt: skip
    for ours in forms:
        folder.root.mkdir(exist_ok=True)
        folder.write_config(Config(), data(ours))
        for theirs in forms:
            if theirs is ours:
                check_is_of_run(folder, data(theirs))
            else:
                with pytest.raises(RunError, match="other columns, categories, scales or tokens"):
                    check_is_of_run(folder, data(theirs))
    folder.write_config(Config(), data(forms[0]))
    assert not capsys.readouterr().err
    check_is_of_run(folder, data(Table((dataclasses.replace(height, mean=170.0 * (1 + 1e-9)), colour)), x=1e-6))
    assert "warning: the training data are not those of" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_run_starts_ends_it_with_75(tmp_path, number):
    """Before the first step there is nothing to save, but the promise of the exit code holds."""
    process = subprocess.Popen(command(tmp_path / "run", train__num_steps=2000), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    # The handlers are there before anything heavy is imported, which the program shows by mapping its library.
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    while "jaxlib" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, output = process.communicate(timeout=600)
    assert process.returncode == 75, output
    assert "interrupted" in output or "saved step" in output
    assert "Traceback" not in output
