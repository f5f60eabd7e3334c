"""The examples run as a user runs them."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Long runs, unlike the rest of the suite, gain more by the compiler's optimisations than these take.
OPTIMISED = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}


@pytest.mark.slow
def test_use_from_jax(tmp_path):
    """Draws, gradients through draws, a blackjax kernel, and a trimodal fit below 2e-3 nats from 50,000 samples."""
    command = [sys.executable, str(ROOT / "examples" / "use_from_jax.py"), "--steps", "300", "--plot", "fit.png"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    divergence = float(re.search(r"KL\(truth \|\| fit\), 50,000 samples: (\S+) nats", process.stdout)[1])
    assert 0 < divergence < 2e-3
    distance = float(re.search(r"squared distance of the mean to its target: (\S+)", process.stdout)[1])
    assert distance < 1e-3
    mean, deviation = map(float, re.search(r"NUTS chain .*: (\S+) (\S+)", process.stdout).groups())
    assert abs(mean - 0.5) < 0.1  # three modes: successive draws are far from independent
    assert abs(deviation - 12**-0.5) < 0.05
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_own_loop(tmp_path):
    """Both loops find every mode: each of the eight has about an eighth of the samples. A picture each."""
    command = [sys.executable, str(ROOT / "examples" / "own_loop.py"), "--out", "toys", "--steps", "1500"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path, env=OPTIMISED)
    assert process.returncode == 0, process.stderr
    shares = re.findall(r"times eight: \[(.*?)\]", process.stdout)
    assert len(shares) == 2
    for line in shares:
        values = [float(value) for value in line.split()]
        assert len(values) == 8
        assert all(0.6 < value < 1.4 for value in values)
    # In nats per datum: above a Gaussian of the data's covariance, and near what sharp modes give.
    nats = {
        name: float(value) for name, value in re.findall(r"^(\w+, \w+): (\S+) nats per held-out", process.stdout, re.M)
    }
    assert set(nats) == {
        f"{toy}, {loop}" for toy in ("eight_gaussians", "two_moons", "checkerboard") for loop in ("by_fit", "own_loop")
    }
    for toy, least in (("eight_gaussians", -1.3), ("two_moons", -1.5), ("checkerboard", -2.55)):
        assert min(nats[f"{toy}, by_fit"], nats[f"{toy}, own_loop"]) > least
    pictures = sorted(path.name for path in (tmp_path / "toys").iterdir())
    assert len(pictures) == 6
    source = (ROOT / "examples" / "own_loop.py").read_text()
    body = re.search(r"def own_loop\(.*?\n(?=\n\ndef )", source, re.DOTALL)[0]
    assert body.count("\n") <= 40
