"""A tiny run of the real program, finished once and shared."""

import pathlib
import subprocess
import sys

import pytest

from tests.training.tiny import NUM_STEPS

__all__ = ["NUM_STEPS", "ROOT", "command", "run"]

ROOT = pathlib.Path(__file__).parents[2]


def command(workdir, *flags, **overrides):
    """The command line of a tiny run."""
    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        sys.executable, "-m", "kaem_jax.main", "--config", str(ROOT / "tests" / "training" / "tiny.py"),
        "--workdir", str(workdir), *[f"--config.{name}={value}" for name, value in settings.items()], *flags,
    ]  # fmt: skip


def run(*args, **kwargs):
    """Runs the program to its end; returns the finished process with its output."""
    return subprocess.run(command(*args, **kwargs), capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(workdir, process) of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    process = run(workdir, "--profile", "3")
    assert process.returncode == 0, process.stderr
    return workdir, process
