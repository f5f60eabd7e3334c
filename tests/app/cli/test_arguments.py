"""What the command line refuses, and the exit codes of what goes wrong."""

import errno
import os
import platform
import subprocess
import sys

import jax
import pytest

from kaem_jax.app.cli import encode, evaluate, explore, export, impute, sample, score
from kaem_jax.app.cli import train as train_command
from kaem_jax.app.loop import Outcome
from kaem_jax.errors import DivergedError
from tests.app.conftest import TINY, call
from tests.app.tiny import untrained

LOWEST = [
    (sample, "--num", 1), (score, "--num", 1), (score, "--proposals", 2), (score, "--typical", 0),
    (encode, "--draws", 2), (impute, "--draws", 2), (evaluate, "--num_images", 20),
    (sample, "--seed", 0), (score, "--seed", 0), (evaluate, "--seed", 0),
]  # fmt: skip


def test_options_that_mean_nothing_are_refused(refused):
    """Numbers that are too small, seeds that no key has, and what would have no effect."""
    cases = [
        (sample, "--workdir run --out s.npz", "--num is missing"),
        (train_command, "--workdir=run", "the following arguments are required: --config"),
        (train_command, "--workdir=", "'' names no file and no folder"),
        (train_command, "--workdir=gs://bucket/run", "gs://bucket/run is an address; give a folder"),
    ]
    cases += [
        (command, f"{name}={number}", f"argument {name}: {number} must be a whole number from {low} to {2**32 - 1}")
        for command, name, low in LOWEST
        for number in (low - 1, 2**32, 1.5, "many")
    ]
    for command, flags, said in cases:
        refused(said, command.main, *flags.split())


def test_what_cannot_be_written_is_refused_before_anything_is_read(finished, tmp_path, monkeypatch, refused):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != finished[0])
    monkeypatch.setitem(sys.modules, "polars", None)
    for name, said in (("file/s.csv", f"{tmp_path / 'file'}: File exists"), ("s.parquet", "needs polars")):
        refused(said, score.main, "--workdir", tmp_path / "none", "--out", tmp_path / name)
    refused("cannot be written to, and the numbers go there", evaluate.main, "--workdir", finished[0])


def test_texts_are_neither_exported_nor_filled_in(tmp_path, refused, as_users_run_it):
    (tmp_path / "t.txt").write_text("aab\nbba\n" * 10)
    workdir = untrained(
        tmp_path / "run", data__name="text", data__path=tmp_path / "t.txt", data__length=4, data__batch_size=8,
        decoder__kind="sequence", decoder__width=8, decoder__num_blocks=1, likelihood__kind="categorical",
    )  # fmt: skip
    refused("token by token", export.main, "--workdir", workdir, "--out", tmp_path / "out")
    refused("parts of texts cannot be missing", impute.main, "--workdir", workdir, "--out", tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DivergedError("train/loss is nan at step 7"), 3, "train/loss is nan at step 7"),
        (MemoryError("no room"), 2, "out of memory (no room); in training lower data.batch_size"),
        (ValueError("RESOURCE_EXHAUSTED: a write: Disk quota exceeded"), 74, "no space left: RESOURCE_EXHAUSTED"),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier"), 75, "DEADLINE_EXCEEDED: Barrier; this may pass, so"),
        (OSError(errno.ESTALE, "Stale file handle"), 75, "Stale file handle; this may pass"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied"),
    ],
    ids=["diverged", "memory", "quota", "late", "stale", "denied"],
)
def test_what_ends_a_run_has_an_exit_code_and_one_sentence(tmp_path, monkeypatch, sentence, error, code, said):
    """Launchers start the same command again after 75 alone: what may pass has it, and nothing else."""

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(train_command, "train_and_evaluate", fails)
    found, line = sentence(train_command.main, *TINY, "--workdir", tmp_path)
    assert (found, line.startswith(f"error: {said}")) == (code, True), line


def test_a_run_has_a_folder_of_its_name_and_says_how_to_go_on(tmp_path, monkeypatch, refused, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").touch()
    refused("--workdir runs/digits is a file; give a folder", train_command.main, *TINY)
    monkeypatch.setattr(train_command, "train_and_evaluate", lambda *_: Outcome.INTERRUPTED)
    assert sentence(train_command.main, *TINY, "--overwrite") == (75, "the same command without --overwrite continues")


LARGE_BUFFERS = """
import resource
import numpy as np
from kaem_jax.app.cli import kaem
assert kaem.main(["report", "--workdir", "nowhere"]) == 2
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is set is glibc's")
def test_a_command_reuses_its_pages():
    """The third buffer of 64 MiB takes the pages of the second."""
    process = subprocess.run([sys.executable, "-c", LARGE_BUFFERS], capture_output=True, text=True, check=True)
    assert int(process.stdout) < 20


def test_flags_reach_what_they_are_for(finished, tmp_path, monkeypatch):
    seen = []
    for module, name, result in (
        (export, "write_artefacts", {"left_out": {}, "artefacts": {}}),
        (explore, "write_page", 0),
        (train_command, "initialize", None),
        (train_command, "train_and_evaluate", Outcome.FINISHED),
    ):
        monkeypatch.setattr(module, name, lambda *given, result=result: seen.append(given) or result)
    flags = ("--workdir", finished[0], "--checkpoint", 40)
    call(export.main, *flags, "--out", tmp_path / "m", "--platforms", "tpu", "cpu")
    call(explore.main, *flags, "--out", tmp_path / "p.html", "--no_browser")
    job = ("--coordinator_address", "a:1", "--num_processes", 2, "--process_id", 1)
    call(train_command.main, *TINY, "--workdir", tmp_path / "run", *job)
    (_, run, _, platforms), (_, shown, _), joined, _ = seen
    assert (run.step, platforms, shown.step, joined) == (40, ["tpu", "cpu"], 40, ("a:1", 2, 1))
