"""Image models in the real loop: SVHN's pixels, where data lie."""

import gc

import jax
import numpy as np
import pytest

from kaem_jax import train
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.log import ProgressReporter
from tests.data.conftest import pixels, prepare  # noqa: F401
from tests.training.conftest import rows_of, train_here
from tests.training.test_resume import final_state
from tests.training.tiny import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]

CONV = {
    "decoder__kind": "conv", "posterior__kind": "langevin", "posterior__num_steps": 3, "train__num_steps": 20,
    "evaluation__every_steps": 20, "checkpoint__every_steps": 20, "data__name": "npz", "data__num_held_out": 20,
}  # fmt: skip


@pytest.fixture
def run_here(monkeypatch, tmp_path, rng):
    """run_here(name, **overrides): a run on 8 x 8 colour images in this process; returns its last parameters."""
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)
    low = rng.integers(0, 256, (120, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=np.kron(low, np.ones((1, 4, 4, 1), np.uint8)))

    def run(name, **overrides):
        config = tiny_config(**CONV | {"data__path": str(tmp_path / "images.npz")} | overrides)
        assert train_and_evaluate(config, tmp_path / name) is Outcome.FINISHED
        return final_state(tmp_path / name).params

    return run


def test_where_the_data_lie_and_how_many_updates_a_call_makes_change_nothing(run_here):
    """Resident or sent batch by batch, with chains that are kept under the data's own numbers.

    Other programs, whose rounding differs with some of XLA's emitters and processors, and which Adam enlarges.
    """
    runs = {"resident": ("device", 1), "streamed": ("host", 1), "by_5": ("device", 5)}
    resident, *others = (
        run_here(name, posterior__persistent=True, data__storage=storage, train__steps_per_call=per_call)
        for name, (storage, per_call) in runs.items()
    )
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), resident, other)


def test_memory_does_not_grow(run_here, monkeypatch):
    """Between log steps nothing is left on the device but what the next step needs."""
    gc.collect()  # what earlier tests left in cycles would go in mid-run
    held = []
    monkeypatch.setattr(ProgressReporter, "report", lambda *_: held.append(sum(a.nbytes for a in jax.live_arrays())))
    run_here("long", train__num_steps=40, evaluation__every_steps=5, checkpoint__every_steps=40)
    assert len(held) == 8
    assert len(set(held)) == 1


def test_svhn_trains_on_real_pixels(prepare, tmp_path):  # noqa: F811
    """The experiment's own file with a smaller model: it beats the mean image within 240 updates."""
    settings = {
        "data.dir": prepare("svhn_cropped", 400), "data.num_held_out": 50, "data.batch_size": 16,
        "prior.num_latents": 8, "prior.num_clusters": 4, "decoder.hidden": "(8, 8, 8)",
        "posterior.encoder.hidden": "(8, 8, 8)", "optimizer.prior.warmup_steps": 10,
        "optimizer.decoder.warmup_steps": 10, "optimizer.decoder.learning_rate": 5e-3, "train.num_steps": 240,
        "train.log_every": 80, "evaluation.every_steps": 80, "checkpoint.every_steps": 240,
        "evaluation.estimator.num_samples": 50, "evaluation.estimator.num_chains": 2,
        "evaluation.estimator.final_budget": 200, "evaluation.posterior_steps": 10,
        "evaluation.num_reconstructions": 25, "parallel.data": 1,
    }  # fmt: skip
    workdir = train_here("svhn", tmp_path / "run", settings, "tiny")
    errors = [row["eval/reconstruction_error"] for row in rows_of(workdir) if "eval/reconstruction_error" in row]
    assert errors[0] > errors[1] > errors[2]
    train_images, held_out = (pixels("svhn_cropped", split)[:n] / 255 for split, n in (("train", 400), ("test", 50)))
    assert errors[2] < 0.7 * np.mean(np.square(held_out - train_images.mean(axis=0)))
    assert (workdir / "figures" / "reconstructions.png").stat().st_size > 10_000
