"""A tiny run of the real program, finished once and shared."""

import inspect
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from filelock import FileLock

from kaem_jax.app.cli import train
from kaem_jax.app.cli.exit_codes import in_one_sentence
from kaem_jax.app.evaluation import periodic
from tests.app.tiny import NUM_STEPS, arguments_of

__all__ = ["NUM_STEPS"]

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("--config", ROOT / "tests" / "app" / "tiny.py", "--config.parallel.data=1", "--config.parallel.temp=1")


def command(workdir, *flags, **overrides):
    """The command line of a tiny run."""
    return [
        sys.executable, "-m", "kaem_jax.main", "--config", str(ROOT / "tests" / "app" / "tiny.py"),
        "--workdir", str(workdir), *arguments_of(overrides), *flags,
    ]  # fmt: skip


def run(*args, **kwargs):
    """Runs the program to its end, which must be a good one; returns the finished process with its output."""
    process = subprocess.run(command(*args, **kwargs), capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return process


def contents(folder):
    """Every file of a folder with its bytes, but for locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder): path.read_bytes() for path in files}


def read_npz(path):
    """The arrays of a file, which is closed again."""
    with np.load(path) as archive:
        return dict(archive)


def rows_of(workdir):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def copy_of(finished, tmp_path, *without):
    """A copy of the finished run, without files of these names."""
    return shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns(*without))


def make_best(workdir, step):
    """Gives a checkpoint the highest held-out log-likelihood."""
    rows = [row | {"eval/log_likelihood": 1e6} if is_evaluated(row, step) else row for row in rows_of(workdir)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def is_evaluated(row, step):
    return row["step"] == step and "eval/log_likelihood" in row and not row.get("eval/is_final")


def train_here(experiment, workdir, settings, variant=""):
    """Trains in this process, as the command does."""
    arguments = [f"--config.{name}={value}" for name, value in settings.items()]
    file = f"{ROOT / 'experiments' / experiment}.py{':' * bool(variant)}{variant}"
    call(train.main, "--config", file, "--workdir", workdir, *arguments)
    return workdir


def call(main, *arguments):
    """Runs a command in this process; it must succeed."""
    with jax.numpy_dtype_promotion("standard"):
        assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture
def drawn(monkeypatch):
    """What training would draw, which takes long: the name of each function with its arguments, which must fit it."""
    calls = []

    def recorder(name):
        signature = inspect.signature(getattr(periodic, name))
        return lambda *given: calls.append((name, *signature.bind(*given).args))

    for name in ("draw_samples", "draw_held_out"):
        monkeypatch.setattr(periodic, name, recorder(name))
    return calls


@pytest.fixture
def sentence(capsys):
    """sentence(main, *arguments): the exit code of a command in this process, and the line that it says."""

    def call(main, *arguments):
        capsys.readouterr()
        with jax.numpy_dtype_promotion("standard"):
            try:
                code = in_one_sentence(main)([str(argument) for argument in arguments])
            except SystemExit as stopped:  # argparse's own refusals, after its usage
                return stopped.code, capsys.readouterr().err.splitlines()[-1]
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return code, lines[0]

    return call


@pytest.fixture
def refused(sentence):
    """refused(part, main, *arguments): the command ends with 2, and the part is in its line."""

    def check(part, main, *arguments):
        code, line = sentence(main, *arguments)
        assert code == 2, line
        assert part in line

    return check


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(workdir, process) of a run that was never interrupted, one for all workers: copy the folder to change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    workdir, said = shared / "finished" / "run", shared / "finished.json"
    with FileLock(shared / "finished.lock"):
        if not said.exists():
            process = run(workdir)
            said.write_text(json.dumps([process.stdout, process.stderr]))
    return workdir, subprocess.CompletedProcess([], 0, *json.loads(said.read_text()))
