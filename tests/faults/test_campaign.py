"""The campaign of faults in its small form; see tests/faults/campaign.py."""

import json
import subprocess
import sys

import pytest

ROOT_SEED = 0


def run(*arguments):
    process = subprocess.run(
        [sys.executable, "-m", "tests.faults.campaign", "--seed", str(ROOT_SEED), *arguments],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert process.returncode == 0, process.stdout + process.stderr
    return {line["part"]: line for line in lines}


def test_configurations():
    found = run("--configurations", "800", "--files", "0", "--kills", "0")["configurations"]
    assert found["tried"] == 800
    assert found["accepted"] > 20
    assert found["refused"] > 400


@pytest.mark.slow
def test_files_and_kills():
    found = run("--configurations", "0", "--files", "60", "--kills", "3")
    assert (found["files"]["tried"], found["files"]["failures"]) == (60, 0)
    assert found["files"]["refused"] > 0  # about seven: names of files, and so what is damaged, differ by run
    assert found["kills"]["accepted"] == found["kills"]["tried"] >= 1
