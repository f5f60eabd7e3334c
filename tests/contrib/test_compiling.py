"""The real train step, compiled for TPUs and GPUs that are not here, where their compilers are installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from kaem_jax.contrib.compile_only import find_topology
from kaem_jax.errors import ConfigError
from tests.training.conftest import ROOT

needs_tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the compiler for TPUs is in the extra `pods` (Python 3.12 or newer)",
)

STEP = """
import dataclasses, json, sys
from kaem_jax.contrib.compile_only import KNOWN_DATA, compile_for, find_topology
from kaem_jax.runs.experiment_file import read_experiment

config = read_experiment(sys.argv[1], sys.argv[2:])
(report,) = compile_for(config, find_topology("v5e:4x4"), *KNOWN_DATA[config.data.name], ("step",))
print(json.dumps(report._replace(cost=dataclasses.asdict(report.cost))._asdict()))
"""


def step_on_v5e(experiment, *settings):
    """In a process of its own: the compilers are plug-ins of a whole process."""
    command = [sys.executable, "-c", STEP, experiment, *(f"--config.{setting}" for setting in settings)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1])


@needs_tpu
@pytest.mark.slow
def test_steps_for_a_slice_of_v5e():
    """No message inside the chains on one column of chips; the state in place."""
    report = step_on_v5e("svhn:paper", "data.batch_size=128")
    assert report["is_donated"]
    assert report["memory"] < 1000 * 2**20
    assert report["cost"]["cycles"] > 0
    assert [(kind, times) for kind, _, times in report["cost"]["collectives"]] == [("all-reduce", 1)]


def test_topologies_that_are_not_known_are_refused(refuses):
    for name in ("v99:4x4", "h100:many", "h100:8x8"):
        with refuses(ConfigError, f"--topology {name!r} cannot be compiled for here", "v5e:4x4, and h100:8"):
            find_topology(name)
