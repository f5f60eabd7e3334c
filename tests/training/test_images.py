"""Image models in the real loop: SVHN's pixels, where data lie, how many updates a call makes."""

import gc
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from kaem_jax import train
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.log import ProgressReporter
from kaem_jax.training.performance import warn_of_slow_arithmetic
from tests.data.conftest import pixels, prepare  # noqa: F401
from tests.training.conftest import ROOT
from tests.training.test_resume import final_state
from tests.training.tiny import tiny_config

CONV = {
    "decoder__kind": "conv",
    "posterior__kind": "langevin",
    "posterior__num_steps": 3,
    "train__num_steps": 20,
    "evaluation__every_steps": 20,
    "checkpoint__every_steps": 20,
    "data__name": "npz",
    "data__num_held_out": 20,
}


@pytest.fixture
def images(tmp_path, rng):
    """The path of an .npz file with 8 x 8 colour images."""
    low = rng.integers(0, 256, (120, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=np.kron(low, np.ones((1, 4, 4, 1), np.uint8)))
    return str(tmp_path / "images.npz")


@pytest.fixture
def run_here(monkeypatch, tmp_path):
    """run_here(name, **overrides): a run in this process; returns its parameters after the last step."""
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)

    def run(name, **overrides):
        with jax.numpy_dtype_promotion("standard"):
            assert train_and_evaluate(tiny_config(**(CONV | overrides)), tmp_path / name) is Outcome.FINISHED
            return final_state(tmp_path / name).params

    return run


@pytest.mark.slow
def test_where_the_data_lie_changes_nothing(run_here, images):
    """Resident or sent batch by batch, with chains that are kept under the data's own numbers.

    Two programs, whose rounding differs with some of XLA's emitters and processors, and which Adam enlarges.
    """
    settings = {"data__path": images, "posterior__persistent": True}
    resident = run_here("resident", data__storage="device", **settings)
    streamed = run_here("streamed", data__storage="host", **settings)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), resident, streamed)


@pytest.mark.slow
def test_updates_in_one_call_are_the_same_updates(run_here, images):
    """Another program computes them, so they agree to rounding that twenty steps of Adam enlarge."""
    one, five = (run_here(f"by_{k}", data__path=images, train__steps_per_call=k) for k in (1, 5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), one, five)


@pytest.mark.slow
def test_memory_does_not_grow(run_here, images, monkeypatch):
    """Between log steps nothing is left on the device but what the next step needs."""
    gc.collect()  # what earlier tests left in cycles would go in mid-run
    held = []
    monkeypatch.setattr(ProgressReporter, "report", lambda *_: held.append(sum(a.nbytes for a in jax.live_arrays())))
    run_here("long", data__path=images, train__num_steps=40, evaluation__every_steps=5, checkpoint__every_steps=40)
    assert len(held) == 8
    assert len(set(held)) == 1


@pytest.mark.slow
def test_bfloat16_on_a_cpu_is_warned_of(run_here, images, capsys):
    run_here("slow", data__path=images, decoder__dtype="bfloat16")
    assert "decoder.dtype='bfloat16' is slower than float32 on a CPU" in capsys.readouterr().err
    warn_of_slow_arithmetic("float32")
    assert not capsys.readouterr().err


def command_line(workdir, *flags):
    program = [sys.executable, "-m", "kaem_jax.main", "--config", f"{ROOT}/experiments/svhn.py:tiny"]
    return subprocess.run([*program, "--workdir", str(workdir), *flags], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_svhn_trains_on_real_pixels(prepare, tmp_path):  # noqa: F811
    """The experiment's own file with a smaller model: it beats the mean image within 240 updates."""
    settings = {
        "data.dir": prepare("svhn_cropped", 400),
        "data.num_held_out": 50,
        "prior.num_latents": 8,
        "prior.num_clusters": 4,
        "decoder.hidden": "(8, 8, 8)",
        "posterior.encoder.hidden": "(8, 8, 8)",
        "optimizer.prior.warmup_steps": 10,
        "optimizer.decoder.warmup_steps": 10,
        "optimizer.decoder.learning_rate": 5e-3,
        "train.num_steps": 240,
        "train.log_every": 80,
        "evaluation.every_steps": 80,
        "checkpoint.every_steps": 240,
        "evaluation.estimator.num_samples": 50,
        "evaluation.estimator.num_chains": 2,
        "evaluation.estimator.final_budget": 200,
        "evaluation.posterior_steps": 10,
        "evaluation.num_reconstructions": 25,
        "data.batch_size": 16,
    }
    process = command_line(tmp_path / "run", *[f"--config.{name}={value}" for name, value in settings.items()])
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    errors = [row["eval/reconstruction_error"] for row in rows if "eval/reconstruction_error" in row]
    assert errors[0] > errors[1] > errors[2]
    train_images, held_out = (pixels("svhn_cropped", split)[:n] / 255 for split, n in (("train", 400), ("test", 50)))
    assert errors[2] < 0.7 * np.mean(np.square(held_out - train_images.mean(axis=0)))
    assert (tmp_path / "run" / "figures" / "reconstructions.png").stat().st_size > 10_000


def test_missing_data_end_in_one_sentence(tmp_path):
    process = command_line(tmp_path / "run", f"--config.data.dir={tmp_path}")
    assert process.returncode == 2
    assert process.stderr.startswith("error: data.name='svhn_cropped' cannot be read by index under")
    assert f"tfds build svhn_cropped --data_dir={tmp_path}" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
