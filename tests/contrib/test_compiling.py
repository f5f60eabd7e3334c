"""The real train step, compiled for TPUs and GPUs that are not here, where their compilers are installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.training.conftest import ROOT

needs_tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the compiler for TPUs is in the extra `pods` (Python 3.12 or newer)",
)


def compile_for(*arguments):
    """In a process of its own: the compilers are plug-ins of a whole process."""
    command = [sys.executable, str(ROOT / "benchmarks" / "compile_for.py"), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr[-2000:]
    return [json.loads(line) for line in process.stdout.splitlines()][1:]


@needs_tpu
@pytest.mark.slow
def test_steps_for_a_slice_of_v5e():
    """No message inside the chains on one column of chips; the state in place; temporaries small."""
    chains, large = compile_for("--experiments", "svhn:paper", "celeba:paper", "--topologies", "v5e:4x4")
    for row, bound in ((chains, 40), (large, 200)):
        assert row["is_donated"], row
        assert row["temporaries_mib"] < bound, row  # 877 MiB with images [N, H, W, C]
        assert row["share_of_memory"] < 1
        assert row["loops_of_unknown_length"] == 0
        assert [(found["kind"], found["times"]) for found in row["collectives"]] == [("all-reduce", 1)], row


@needs_tpu
@pytest.mark.slow
def test_rungs_on_several_chips_exchange_numbers_only():
    """Rounds send [T, B] numbers; latents [B, Q] of the last rung are added once, and never all of [T, B, Q]."""
    (row,) = compile_for(
        "--experiments", "svhn_tempered:paper", "--topologies", "v5e:4x4", "--temp", "4",
        "--set", "posterior.num_temperatures=20",
    )  # fmt: skip
    assert row["is_donated"]
    batch, num_temperatures, num_latents = row["batch"], 20, 40
    in_rounds = [found for found in row["collectives"] if found["times"] > 1]
    assert in_rounds
    assert max(found["kib"] for found in in_rounds) <= 4 * num_temperatures * batch / 1024
    assert not any(found["kind"] == "all-gather" and found["kib"] >= 4 * num_temperatures * batch * num_latents / 1024
                   for found in row["collectives"]), row  # fmt: skip


def test_a_run_without_a_compiler_for_it_is_refused():
    command = [
        sys.executable,
        "-m",
        "kaem_jax.main",
        "--config",
        "svhn:tiny",
        "--compile_only",
        "--topology",
        "v99:4x4",
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 2
    assert "--topology 'v99:4x4' cannot be compiled for here" in process.stderr.splitlines()[-1]
