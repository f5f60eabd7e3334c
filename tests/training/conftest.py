"""A tiny run of the real program, finished once and shared."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NUM_STEPS = 60
TINY = {
    "prior.outer": 2,
    "prior.inner": 2,
    "generator.hidden": "(16,)",
    "posterior.num_samples": 64,
    "data.batch_size": 32,
    "data.num_held_out": 100,
    "train.num_steps": NUM_STEPS,
    "train.log_every": 5,
    "evaluation.every_steps": 10,
    "evaluation.num_samples": 400,
    "evaluation.final_num_samples": 400,
    "evaluation.chunk_size": 100,
    "evaluation.num_reconstructions": 20,
    "evaluation.posterior_steps": 4,
    "checkpoint.every_steps": 20,
    "optimizer.prior.warmup_steps": 5,
    "optimizer.generator.warmup_steps": 5,
}


def command(workdir, *flags, **overrides):
    """The command line of a tiny run."""
    settings = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        sys.executable, "-m", "kaem_jax.main", "--config", str(ROOT / "experiments" / "digits.py"),
        "--workdir", str(workdir), *[f"--config.{name}={value}" for name, value in settings.items()], *flags,
    ]  # fmt: skip


def run(*args, **kwargs):
    """Runs the program to its end; returns the finished process with its output."""
    return subprocess.run(command(*args, **kwargs), capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(workdir, process) of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    process = run(workdir)
    assert process.returncode == 0, process.stderr
    return workdir, process
