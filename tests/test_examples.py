"""The examples run as a user runs them."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Long runs, unlike the rest of the suite, gain more by the compiler's optimisations than these take.
OPTIMISED = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}


def run_example(name, folder, *arguments, **options):
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder, **options)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_use_from_jax(tmp_path):
    """Draws, gradients through draws, a blackjax kernel, and a trimodal fit below 2e-3 nats from 50,000 samples."""
    said = run_example("use_from_jax", tmp_path, "--steps", "300", "--plot", "fit.png")
    assert 0 < float(re.search(r"KL\(truth \|\| fit\), 50,000 samples: (\S+) nats", said)[1]) < 2e-3
    assert float(re.search(r"squared distance of the mean to its target: (\S+)", said)[1]) < 1e-3
    mean, deviation = map(float, re.search(r"NUTS chain .*: (\S+) (\S+)", said).groups())
    assert abs(mean - 0.5) < 0.1  # three modes: successive draws are far from independent
    assert abs(deviation - 12**-0.5) < 0.05
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.release
def test_own_loop(tmp_path):
    """Both loops find every mode: each of the eight has about an eighth of the samples. A picture each.

    In nats per datum: above a Gaussian of the data's covariance, and near what sharp modes give."""
    said = run_example("own_loop", tmp_path, "--out", "toys", "--steps", "1500", env=OPTIMISED)
    shares = [[float(value) for value in line.split()] for line in re.findall(r"times eight: \[(.*?)\]", said)]
    assert np.shape(shares) == (2, 8)
    assert np.all(np.abs(np.array(shares) - 1) < 0.4)
    nats = {name: float(value) for name, value in re.findall(r"^(\w+, \w+): (\S+) nats per held-out", said, re.M)}
    least = {"eight_gaussians": -1.3, "two_moons": -1.5, "checkerboard": -2.55}
    assert nats.keys() == {f"{toy}, {loop}" for toy in least for loop in ("by_fit", "own_loop")}
    assert all(value > least[name.partition(",")[0]] for name, value in nats.items())
    assert len([*(tmp_path / "toys").iterdir()]) == 6
    source = (ROOT / "examples" / "own_loop.py").read_text()
    assert re.search(r"def own_loop\(.*?\n(?=\n\ndef )", source, re.DOTALL)[0].count("\n") <= 40
