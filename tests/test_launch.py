"""The files that start training on clusters: checked by the checkers of their languages, and run as far as one machine
goes."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from kaem_jax.app.cli.exit_codes import EXIT_DISK, EXIT_DIVERGED
from kaem_jax.app.cli.train import _parser
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.errors import EXIT_REFUSED

ROOT = pathlib.Path(__file__).parents[1]
SLURM, MANIFEST, DOCKERFILE = ROOT / "launch" / "slurm.sh", ROOT / "launch" / "gke.yaml", ROOT / "Dockerfile"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


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
    config = read_experiment(given.config, overrides)
    assert config.data.batch_size % (rows * columns) == 0
    cache = {entry["name"]: entry["value"] for entry in container["env"]}["KAEM_JAX_CACHE"]
    fail, _ = job["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"]["values"] == [EXIT_REFUSED, EXIT_DIVERGED, EXIT_DISK]
    assert container["resources"]["requests"] == container["resources"]["limits"]  # GKE wants both for TPUs
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
    assert read_experiment(given.config, overrides).data.batch_size == 256


def test_what_was_interrupted_is_queued_again_and_then_deletes_nothing(tmp_path):
    """`--overwrite` is for the first start; arguments with spaces stay whole; what never passes is not queued."""
    for name, does in (("srun", 'printf "%s\\n" "$@"\nexit "$CODE"'), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    own = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    own |= {"SLURM_CPUS_PER_TASK": "4"}
    given = ["--config", "digits", "--overwrite", "--workdir", "a b"]
    again, requeue = [word for word in given if word != "--overwrite"], ["requeue 7"]
    started = ["--cpus-per-task=4", "--kill-on-bad-exit=0", "--wait=120", "python", "-m", "kaem_jax.main"]
    for code, count, said in (
        (0, {}, given), (75, {}, given + requeue), (75, {"SLURM_RESTART_COUNT": "0"}, given + requeue),
        (75, {"SLURM_RESTART_COUNT": "1"}, again + requeue), (1, {"SLURM_RESTART_COUNT": "1"}, again),
        (75, {"SLURM_RESTART_COUNT": "100"}, again),
    ):  # fmt: skip
        environment = own | count | {"CODE": str(code)}
        found = subprocess.run(["bash", SLURM, *given], capture_output=True, text=True, env=environment, timeout=60)
        assert (found.returncode, found.stdout.splitlines()) == (code, started + said)
