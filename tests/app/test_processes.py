"""Two real processes with two devices each: they train, save, die, go on together or as one, stop, and evaluate."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.app.conftest import command
from tests.app.test_resume import final_state
from tests.training.test_stages import assert_equal, state_at

pytestmark = pytest.mark.slow

TIMEOUT = 400  # a busy machine takes five times as long
SETTINGS = {
    "train__num_steps": 20, "checkpoint__every_steps": 10, "evaluation__every_steps": 10,
    "posterior__kind": "tempered", "posterior__num_temperatures": 2, "posterior__num_steps": 4,
    "posterior__steps_per_round": 2, "posterior__encoder__kind": "mlp", "posterior__encoder__hidden": (2,),
    "posterior__persistent": True, "posterior__precondition": True, "evaluation__proposal": "encoder",
    "evaluation__estimator__kind": "auto",  # some data are annealed, which all processes must agree on
    "evaluation__estimator__num_chains": 24, "evaluation__estimator__final_budget": 26 * (32 + 64 + 128),
    "parallel__temp": 2,
}  # fmt: skip


class Job:
    """Two processes of one command, or each of its own; on leaving it none is left, and a failure shows both logs."""

    def __init__(self, arguments, logs, name, second=None, environment=None):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.logs = [logs / f"{name}{i}.log" for i in range(2)]
        flags = [f"--coordinator_address={address}", "--num_processes=2"]
        self.processes = []
        for i, log in enumerate(self.logs):
            # A proxy for the outside would be asked for the other process, too.
            direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            variables = direct | {"JAX_NUM_CPU_DEVICES": "2"} | (environment or {})
            with log.open("w") as file:
                own = [*(second if second and i else arguments), *flags, f"--process_id={i}"]
                self.processes.append(subprocess.Popen(own, stdout=file, stderr=file, env=variables))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for process in self.processes:
            process.kill()
            process.wait()

    def fail(self, reason):
        pytest.fail(reason + "".join(f"\n{log}:\n{log.read_text()}" for log in self.logs))

    def wait(self):
        deadline = time.monotonic() + TIMEOUT
        try:
            return [process.wait(deadline - time.monotonic()) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.fail(f"not finished after {TIMEOUT} s")

    def finish(self):
        """What both said, who must succeed."""
        if self.wait() != [0, 0]:
            self.fail("a process failed")
        return [log.read_text() for log in self.logs]

    def until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > deadline:
                self.fail("ended or timed out before it was stopped")
            time.sleep(0.01)


def training(workdir, **overrides):
    return command(workdir, **(SETTINGS | overrides))


def evaluation(workdir):
    program = [sys.executable, "-c", "from kaem_jax.app.cli.kaem import run; run()"]
    return [*program, "evaluate", "--workdir", str(workdir), "--num_images", "40"]


def alone(arguments, **environment):
    """What one process says, which must succeed."""
    env = os.environ | environment
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, env=env)
    assert process.returncode == 0, process.stderr
    return process.stderr


def parameters(workdir):
    return jax.tree.leaves(final_state(workdir).params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a job that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with Job(training(folder / "run"), folder, "whole") as job:
        first, second = job.finish()
        assert "finished 20 steps" in first
        assert second.count("step 20/20") == 0  # one process talks
    return folder / "run"


def test_two_processes_evaluate_as_one_does(whole, tmp_path):
    for name in ("alone", "job"):
        shutil.copytree(whole, tmp_path / name)
    alone(evaluation(tmp_path / "alone"))
    with Job(evaluation(tmp_path / "job"), tmp_path, "job") as job:
        assert ["log likelihood" in said for said in job.finish()] == [True, False]  # one process talks
    for name in ("evaluation.json", "latents.json"):
        both, one = (json.loads((tmp_path / folder / name).read_text()) for folder in ("job", "alone"))
        assert_close(both, one, name)
    metrics = json.loads((tmp_path / "job" / "evaluation.json").read_text())["metrics"]
    assert metrics["fid"]["value"] > 0  # labelled data have a classifier without being asked
    assert 0 < metrics["log_likelihood"]["num_annealed"] < metrics["log_likelihood"]["num_data"]
    figures = [{path.name for path in (tmp_path / folder / "figures").rglob("*.png")} for folder in ("alone", "job")]
    assert figures[0] == figures[1]
    assert (tmp_path / "job" / "report.html").exists()


def test_stages_of_two_processes_are_those_of_one(tmp_path):
    """On a mesh of two devices, whose sums have two terms: parameters, moments and kept chains bit for bit."""
    file = pathlib.Path(__file__).with_name("staged.py")
    program = [sys.executable, "-m", "kaem_jax.main", "--config", str(file), "--workdir"]
    of_tests = {"PYTHONPATH": str(file.parents[2])}
    alone([*program, str(tmp_path / "alone")], JAX_NUM_CPU_DEVICES="2", **of_tests)
    one_each = {"JAX_NUM_CPU_DEVICES": "1"} | of_tests
    with Job([*program, str(tmp_path / "job")], tmp_path, "job", environment=one_each) as job:
        job.finish()
    for step in (20, 40):
        jax.tree.map(assert_equal, state_at(tmp_path / "job", step), state_at(tmp_path / "alone", step))


def assert_close(ours, theirs, name):
    """Equal structures whose numbers differ by rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), name
        for key in theirs.keys() - {"seconds", "device"}:
            assert_close(ours[key], theirs[key], f"{name}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), name
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_close(*pair, f"{name}[{i}]")
    elif isinstance(theirs, float):
        # One acceptance that rounding decides the other way moves the weights of its datum.
        of_weights = name.rpartition(".")[2].startswith("ess") or name.endswith("standard_error")
        assert ours == pytest.approx(theirs, rel=0.05 if of_weights else 1e-4, abs=1e-5), name
    else:
        assert ours == theirs, name


def test_killed_and_restarted_it_ends_bit_for_bit_the_same(whole, tmp_path):
    with Job(training(tmp_path / "run"), tmp_path, "killed") as job:
        job.until(lambda: (tmp_path / "run" / "checkpoints" / "10").exists())
        job.processes[1].send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "checkpoints" / "20").exists()
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    with Job(training(tmp_path / "run"), tmp_path, "again") as job:
        assert "resuming" in job.finish()[0]
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path / "run"), parameters(whole))
    # One process with one device goes on where two with four stopped.
    assert "resuming" in alone(training(tmp_path / "alone", parallel__temp=1))
    for ours, theirs in zip(parameters(tmp_path / "alone"), parameters(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)


def test_preempted_in_its_last_evaluation_it_evaluates_once_more(whole, tmp_path):
    """It does not notice the signal there, so the grace of the launcher runs out; nothing is lost."""
    run = tmp_path / "run"
    with Job(training(run), tmp_path, "preempted") as job:
        job.until(lambda: "the final evaluation takes" in job.logs[0].read_text())
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in job.processes:
                process.send_signal(number)
    assert not (run / "summary.json").exists()
    with Job(training(run), tmp_path, "again") as job:
        assert "resuming" in job.finish()[0]
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run, whole))
    assert_close(ours, theirs, "summary")
    jax.tree.map(np.testing.assert_array_equal, parameters(run), parameters(whole))


def test_told_to_stop_one_process_stops_both_at_one_step(tmp_path):
    workdir = tmp_path / "run"
    with Job(training(workdir, train__num_steps=100_000, train__steps_per_call=5), tmp_path, "stopped") as job:
        job.until(lambda: (workdir / "metrics.jsonl").exists() and "step" in (workdir / "metrics.jsonl").read_text())
        job.processes[1].send_signal(signal.SIGTERM)
        codes = job.wait()
        if codes != [75, 75]:
            job.fail(f"exit codes {codes}")
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    assert f"saved step {max(saved)}" in job.logs[0].read_text()


@pytest.mark.parametrize(
    ("folder", "other", "said"), [("there", {}, "--workdir"), ("here", {"seed": 7}, "the configuration")]
)
def test_processes_that_are_told_different_things_are_refused(tmp_path, folder, other, said):
    """Before anything compiles, and not at the first checkpoint."""
    with Job(training(tmp_path / "here"), tmp_path, "apart", second=training(tmp_path / folder, **other)) as job:
        assert job.wait() == [2, 2]
        for log in job.logs:
            assert f"{said} is not the same in all 2 processes" in log.read_text()
            assert "compiling" not in log.read_text()
    assert not (tmp_path / "here").exists()  # nor is an empty folder left
