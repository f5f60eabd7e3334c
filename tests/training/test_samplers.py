"""Training with every sampler, and of images, in this process: what is carried survives an interruption."""

import gc
import signal

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax import train
from kaem_jax.data import batch_indices
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.keys import run_keys
from kaem_jax.training.log import ProgressReporter
from tests.data.conftest import pixels, prepare  # noqa: F401
from tests.training.conftest import rows_of, train_here
from tests.training.test_resume import assert_same_run, final_state
from tests.training.tiny import parts_of, tiny_config

SHORT = {"train__num_steps": 20, "checkpoint__every_steps": 20, "evaluation__every_steps": 20}


def posterior(kind, **fields):
    return {"posterior__kind": kind} | {f"posterior__{name}": value for name, value in fields.items()}


CHAINS = {"num_steps": 3, "adapt_steps": 8}
POPULATION = {"num_steps": 4, "steps_per_round": 2, "num_temperatures": 3, "ladder": "adaptive", "persistent": True}
ENCODER = {"encoder__kind": "mlp", "encoder__hidden": (16,)}
FROM_ENCODER = {"evaluation__proposal__kind": "encoder"}
AIS = {"kind": "ais", "num_temperatures": 4, "final_num_temperatures": 5}
CASES = {
    # Chains kept for every datum, a step size that adapts, breakpoints that move, two updates a call.
    "persistent_mala": posterior("langevin", **CHAINS, num_chains=2, persistent=True)
    | {"grid_update__first_step": 4, "grid_update__growth": 1.0, "train__steps_per_call": 2, "train__log_every": 2},
    # A population on a ladder that adapts, with a step size for every rung, two chains a datum that are kept.
    "tempered": posterior("tempered", **POPULATION, num_chains=2, adapt_steps=8)
    | {f"evaluation__estimator__{name}": value for name, value in AIS.items()},
    # A metric that is estimated from step to step, an encoder that learns the ends of the chains.
    "preconditioned": posterior("langevin", **CHAINS, **ENCODER, precondition=True) | FROM_ENCODER,
    "tempered_from_encoder": posterior(
        "tempered", **POPULATION, **ENCODER, encoder_target="simulated", precondition=True
    ),
    "variational": posterior("variational", **ENCODER, num_draws=2, kl_warmup_steps=5) | FROM_ENCODER,
    # An average of the parameters, a scale that is annealed, mirror images, classes.
    "all_options": posterior("variational", **ENCODER)
    | FROM_ENCODER
    | {"prior__kind": "clustered", "prior__num_clusters": 10, "prior__num_classes": 10, "data__labels": True}
    | {"likelihood__kind": "discretized_logistic", "likelihood__levels": 17, "likelihood__learn_sigma": False}
    | {"likelihood__sigma": 0.1, "likelihood__anneal_from": 0.5, "likelihood__anneal_steps": 15}
    | {"data__flip": True, "optimizer__average_decay": 0.9, "grid_update__first_step": 6},
    # The literal theorem in its own coordinates.
    "comonotone_pcnl": posterior("langevin", kernel__kind="pcnl", num_steps=3)
    | {"prior__kind": "comonotone", "prior__centred__kind": "product", "penalties__difference": 1e-3}
    | {"prior__centred__num_latents": 2},
    "neural_ula": posterior("langevin", kernel__kind="ula", num_steps=3)
    | {"prior__kind": "neural", "prior__hidden": (16,), "prior__num_steps": 5, "loss__negative_phase": "sampled"},
    "sobol_proposals": posterior("importance", points="sobol")
    | {"evaluation__estimator__points": "sobol", "grid_update__first_step": 3, "grid_update__source": "prior"}
    | {"prior__proportions": "learned", "penalties__l1": 1e-3, "penalties__dirichlet": 1e-2},
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)


def trained(config, workdir):
    """The rows of a run, all finite, and its last state."""
    assert train_and_evaluate(config, workdir) is Outcome.FINISHED
    rows = rows_of(workdir)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    return rows, final_state(workdir)


def column(rows, name):
    return [row[name] for row in rows if name in row]


@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_an_interrupted_run_ends_where_the_other_one_does(tmp_path, name):
    config = tiny_config(**(SHORT | CASES[name]))
    rows, state = trained(config, tmp_path / "whole")
    if name == "comonotone_pcnl":
        assert all(0 < value <= 1 for value in column(rows, "train/acceptance"))
    if name in ("comonotone_pcnl", "neural_ula", "sobol_proposals"):  # test_resume.py sees all they carry
        return
    stopped = train_and_evaluate(
        config, tmp_path / "parts", watch=lambda row: row["step"] == 10 and signal.raise_signal(signal.SIGTERM)
    )
    assert stopped is Outcome.INTERRUPTED
    assert train_and_evaluate(config, tmp_path / "parts") is Outcome.FINISHED
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    first = parts_of(config, 1437, run_keys(config.seed).state).state
    if name in ("preconditioned", "tempered_from_encoder"):
        assert np.abs(np.asarray(state.sampler.metric.likelihood)).max() > 1
    if "encoder" in state.params:
        pairs = zip(*(jax.tree.leaves(each.params["encoder"]) for each in (first, state)), strict=True)
        assert all(np.any(a != b) for a, b in pairs)
    if name == "persistent_mala":
        assert first.sampler.chains.shape == (2, 1437, 2)
        # Twenty batches of 32, less than an epoch: their chains moved on but for rejected moves, nobody else's did.
        moved = np.any(np.asarray(state.sampler.chains != first.sampler.chains), axis=(0, 2))
        seen = np.concatenate([batch_indices(i, size=1437, batch_size=32, seed=config.seed) for i in range(20)])
        assert moved[seen].mean() > 0.95
        assert not np.delete(moved, seen).any()
        sizes = column(rows, "train/step_size")
        assert sizes[0] != sizes[2]
        assert len(set(sizes[4:])) == 1  # frozen after the warm-up
        assert [row["step"] for row in rows if "train/grid_change" in row] == [4, 8, 12, 16]
    if name == "all_options":
        assert float(state.params["likelihood"]["log_sigma"]) == pytest.approx(np.log(0.1), rel=1e-5)
        jax.tree.map(np.testing.assert_array_equal, kaem.load_run(tmp_path / "whole").params, state.average)
        assert np.any(jax.tree.leaves(state.average["decoder"])[0] != jax.tree.leaves(state.params["decoder"])[0])
    if name == "tempered":
        assert state.sampler.chains.z.shape == (3, 2, 1437, 2)
        betas, sizes = np.asarray(state.sampler.betas), np.asarray(state.sampler.step_size)
        assert (betas[0], betas[2]) == (0, 1)
        assert betas[1] not in (0, 0.125, 1)
        assert sizes[0] == np.float32(config.posterior.step_size)  # exact draws have no moves to adapt
        assert sizes[1] > sizes[2]
        assert all(0 < value <= 1 for value in column(rows, "train/swap_acceptance"))
        assert column(rows, "eval/num_temperatures") == [4, 5]
        # Evaluation goes on with what training adapted, with chains of its own length; so it is read back.
        loaded = kaem.load_run(tmp_path / "whole")
        for frozen in (loaded.posterior, loaded.training_posterior):
            np.testing.assert_array_equal(frozen.state.betas, betas)
            np.testing.assert_array_equal(frozen.state.step_size, sizes)
            assert frozen.state.chains is None
        assert (loaded.posterior.sampler.num_steps, loaded.training_posterior.sampler.num_steps) == (10, 4)


def test_many_grid_updates_stay_finite(tmp_path):
    """On digits, an update every fourth step: the breakpoints leave their places, the loss goes down."""
    config = tiny_config(
        decoder__kind="kan", train__num_steps=100, grid_update__first_step=4, grid_update__growth=1.0,
        evaluation__every_steps=50, checkpoint__every_steps=100,
    )  # fmt: skip
    rows, state = trained(config, tmp_path / "run")
    changes = column(rows, "train/grid_change")
    assert len(changes) >= 4
    assert max(changes) <= 0.05
    grid = np.asarray(state.params["prior"]["bank"]["grid"])
    assert np.max(np.abs(np.diff(grid) - np.diff(grid).mean())) > 1e-3
    evaluations = column(rows, "eval/log_likelihood")
    assert evaluations[-1] > evaluations[0]


CONV = {
    "decoder__kind": "conv", "posterior__kind": "langevin", "posterior__num_steps": 3, "train__num_steps": 20,
    "evaluation__every_steps": 20, "checkpoint__every_steps": 20, "data__name": "npz", "data__num_held_out": 20,
}  # fmt: skip


@pytest.fixture
def run_here(tmp_path, rng):
    """run_here(name, **overrides): a run on 8 x 8 colour images in this process; returns its last parameters."""
    low = rng.integers(0, 256, (120, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=np.kron(low, np.ones((1, 4, 4, 1), np.uint8)))

    def run(name, **overrides):
        config = tiny_config(**CONV | {"data__path": str(tmp_path / "images.npz")} | overrides)
        return trained(config, tmp_path / name)[1].params

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
