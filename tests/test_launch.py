"""The files that start training on clusters: checked by the checkers of their languages, and run as far as one machine
goes. The SLURM script starts two real processes by an `srun` that sets what SLURM sets."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

from kaem_jax.cli.refusals import EXIT_DISK, EXIT_DIVERGED
from kaem_jax.cli.train import _parser, read_config
from kaem_jax.errors import EXIT_REFUSED
from tests.training.conftest import command

ROOT = pathlib.Path(__file__).parents[1]
SLURM, MANIFEST, DOCKERFILE = ROOT / "launch" / "slurm.sh", ROOT / "launch" / "gke.yaml", ROOT / "Dockerfile"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# What the real one does, of what the script asks of it: SLURM's variables for each task, and the highest exit code.
SRUN = """
import os, pathlib, subprocess, sys
at = sys.argv.index("python")
assert sys.argv[1:at] == ["--kill-on-bad-exit=0", "--wait=120"], sys.argv
step = {"STEP_NODELIST": "localhost", "NTASKS": 2, "STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 1}
tasks = []
for i in range(2):
    own = {f"SLURM_{name}": str(value) for name, value in (step | {"PROCID": i, "LOCALID": i}).items()}
    tasks.append(subprocess.Popen([sys.executable, *sys.argv[at + 1 :]], env=os.environ | own))
pathlib.Path(os.environ["FAKE_PIDS"]).write_text(" ".join(str(task.pid) for task in tasks))
sys.exit(max(code if code >= 0 else 128 - code for code in [task.wait() for task in tasks]))
"""


@pytest.mark.parametrize(("name", "path"), [("shellcheck", SLURM), ("hadolint", DOCKERFILE)])
def test_scripts_are_good(name, path):
    """By a program beside this Python, or on the path."""
    found = shutil.which(name, path=os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed (extras `test` and `checkers`)")
    process = subprocess.run([found, str(path)], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_image_is_made_of_the_wheel_and_trains():
    """What can be said without a daemon: the wheel is in the context, the entry point is the program."""
    text = DOCKERFILE.read_text()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1:] == ["*", "!dist/*.whl"]
    (copied,) = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied == "dist/*.whl"
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1]) == ["python", "-m", "kaem_jax.main"]
    assert set(re.findall(r"kaem:([\d.]+)", text + MANIFEST.read_text())) == {VERSION}


def test_the_manifest_follows_the_schemas_of_kubernetes():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it is in the extra `checkers`")
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_manifest_fits_together():
    """Names that refer to each other, hosts and chips of the slice, arguments that the program accepts."""
    service, job = yaml.safe_load_all(MANIFEST.read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = int(container["resources"]["limits"]["google.com/tpu"])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == rows * columns // chips
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    given, overrides = _parser().parse_known_args(container["args"])
    config = read_config(given.config, overrides)
    assert config.data.batch_size % (rows * columns) == 0
    cache = {entry["name"]: entry["value"] for entry in container["env"]}["KAEM_JAX_CACHE"]
    fail, _ = job["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"]["values"] == [EXIT_REFUSED, EXIT_DIVERGED, EXIT_DISK]
    assert pod["restartPolicy"] == "Never"  # as a policy for failures needs it
    for path in (str(given.workdir), config.data.dir, cache):
        assert path.startswith(container["volumeMounts"][0]["mountPath"])


def test_the_script_asks_for_a_process_for_each_gpu_and_gives_a_command_that_is_accepted():
    """JAX shows a process that SLURM started only the GPU of its number on the node."""
    text = SLURM.read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=([^ \n]+)", text, re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert "--gpus-per-task" not in text  # then a process would see one GPU, under the number 0
    (line,) = re.findall(r"^# sbatch launch/slurm.sh (.*)$", text, re.MULTILINE)
    given, overrides = _parser().parse_known_args(line.split())
    assert read_config(given.config, overrides).data.batch_size == 256


def job_with_free_port():
    """JAX takes the port from the job's number: 61440 + number % 4096."""
    for number in range(4096 + os.getpid() % 4096, 12288):
        with socket.socket() as free:
            try:
                free.bind(("localhost", 61440 + number % 4096))
            except OSError:
                continue
        return number
    raise AssertionError("no free port")


@pytest.fixture
def cluster(tmp_path):
    """Starts the script as SLURM would; nothing that it started is left."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(f"#!{sys.executable}\n{SRUN}")
    (programs / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path / "requeued"}\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    pids, jobs = tmp_path / "pids", []

    def sbatch(*arguments):
        pids.unlink(missing_ok=True)
        environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": str(job_with_free_port()),
            "FAKE_PIDS": str(pids), "JAX_NUM_CPU_DEVICES": "1",
        }  # fmt: skip
        log = tmp_path / f"log{len(jobs)}"
        with log.open("w") as file:
            jobs.append(subprocess.Popen(["bash", SLURM, *arguments], stdout=file, stderr=file, env=environment))
        return environment["SLURM_JOB_ID"], jobs[-1], log

    yield sbatch, pids
    for job in jobs:
        if job.poll() is None:
            for pid in pids.read_text().split() if pids.exists() else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            job.kill()
        job.wait()


@pytest.mark.slow
def test_the_script_trains_stops_requeues_and_goes_on(cluster, tmp_path):
    """SLURM's signal before the end of an allocation: saved, queued again, continued; the second job finishes."""
    sbatch, pids = cluster
    workdir = tmp_path / "run"
    arguments = command(workdir, train__num_steps=2000, evaluation__every_steps=1000, checkpoint__every_steps=1000)[3:]
    number, job, log = sbatch(*arguments)
    deadline = time.monotonic() + 600
    while not ((workdir / "metrics.jsonl").exists() and "step" in (workdir / "metrics.jsonl").read_text()):
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    for pid in pids.read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    assert job.wait(600) == 75, log.read_text()
    assert (tmp_path / "requeued").read_text() == f"requeue {number}\n"
    assert json.loads((workdir / "config.json").read_text())["device"]["count"] == 2  # both tasks are of one job
    (saved,) = re.findall(r"saved step (\d+)", log.read_text())
    assert 0 < int(saved) < 2000

    _, job, log = sbatch(*arguments)
    assert job.wait(600) == 0, log.read_text()
    assert f"at step {saved}" in log.read_text()
    assert "finished 2000 steps" in log.read_text()
    assert len((tmp_path / "requeued").read_text().splitlines()) == 1  # a finished job is not queued again


def test_a_job_that_was_queued_again_deletes_nothing(tmp_path):
    """`--overwrite` is for the first start; arguments with spaces stay whole."""
    (tmp_path / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    given = ["--config", "digits", "--overwrite", "--workdir", "a b"]
    for count, expected in ((None, given), ("0", given), ("1", [word for word in given if word != "--overwrite"])):
        environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        if count is not None:
            environment["SLURM_RESTART_COUNT"] = count
        found = subprocess.run(["bash", SLURM, *given], capture_output=True, text=True, env=environment, timeout=60)
        assert found.stdout.splitlines()[-len(expected) :] == expected
        assert found.stdout.splitlines()[-len(expected) - 1] == "kaem_jax.main"
