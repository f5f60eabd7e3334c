"""The examples run as a user runs them."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

import kaem_jax as kaem

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


def test_read_densities_knows_the_nats_of_a_shifted_gaussian():
    """f(y) = a y makes N(a, 1): a^2 / 2 nats, none of which a Gaussian lacks."""
    read = runpy.run_path(str(ROOT / "examples" / "read_densities.py"))["read"]
    prior = kaem.ClusteredPrior(num_latents=1, num_clusters=2, grid_size=10)
    params = prior.init(jax.random.key(0))
    centres = np.arange(13) - 6.0  # of the cubic splines, one deviation apart: they reproduce straight lines
    params["bank"]["coefficients"] = np.float32([0, 0.5])[:, None, None] * np.float32(centres)
    density, numbers = read(prior, params)
    np.testing.assert_allclose(density.sum(axis=-1) * 0.005, 1, atol=1e-5)
    np.testing.assert_allclose(numbers[:, :, 0], [[0, 0.125], [0, 0], [0, 0], [0, 0]], atol=1e-3)


@pytest.mark.slow
def test_read_densities(tmp_path):
    """A run of twenty updates with full maps: the table is sorted, and there is a figure."""
    settings = {
        "prior.num_latents": 3, "prior.num_clusters": 2, "prior.map": "full", "train.num_steps": 20,
        "train.refit": True, "posterior.num_samples": 200, "decoder.hidden": 16, "data.num_held_out": 20,
        "evaluation.proposal": "prior", "evaluation.estimator.num_samples": 100, "evaluation.num_reconstructions": 4,
    }  # fmt: skip
    options = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "kaem_jax.main", "--config", "digits", "--workdir", "run", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=tmp_path)
    said = run_example("read_densities", tmp_path, "--run", "run", "--out", "densities.png", "--rows", "2")
    nats = [float(line.split()[3]) for line in said.splitlines()[1:-1]]
    assert len(nats) == 4
    assert nats == sorted(nats, reverse=True)
    assert (tmp_path / "densities.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tune(tmp_path):
    """Two trials, and a third by the same command; each value is that of its run, and the best one is said."""
    settings = {
        "train.num_steps": 10, "data.held_out": "validation", "data.validation_size": 50, "data.num_held_out": 20,
        "decoder.hidden": 16, "evaluation.proposal": "prior", "evaluation.estimator.num_samples": 100,
        "evaluation.num_reconstructions": 4,
    }  # fmt: skip
    options = [f"--config.{name}={value}" for name, value in settings.items()]
    for trials in (2, 1):
        said = run_example("tune", tmp_path, "--config", "digits", "--out", "study", "--trials", str(trials), *options)
    runs = [json.loads((tmp_path / "study" / f"00{i}" / "summary.json").read_text()) for i in range(3)]
    values = [run["eval/log_likelihood"] for run in runs]
    best, nats = re.search(r"best: trial (\d), (\S+) nats", said).groups()
    assert int(best) == np.argmax(values)
    assert float(nats) == pytest.approx(max(values), abs=1e-3)
