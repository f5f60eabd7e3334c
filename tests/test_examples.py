"""The examples run as a user runs them."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_use_from_jax(tmp_path):
    """Draws, gradients through draws, a blackjax kernel, and a trimodal fit below 2e-3 nats from 50,000 samples."""
    command = [sys.executable, str(ROOT / "examples" / "use_from_jax.py"), "--steps", "300", "--plot", "fit.png"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    divergence = float(re.search(r"KL\(truth \|\| fit\), 50,000 samples: (\S+) nats", process.stdout)[1])
    assert 0 < divergence < 2e-3
    distance = float(re.search(r"squared distance of the mean to its target: (\S+)", process.stdout)[1])
    assert distance < 1e-3
    mean, deviation = map(float, re.search(r"NUTS chain .*: (\S+) (\S+)", process.stdout).groups())
    assert abs(mean - 0.5) < 0.1  # three modes: successive draws are far from independent
    assert abs(deviation - 12**-0.5) < 0.05
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
