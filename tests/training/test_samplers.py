"""Training with every sampler, and of images, in this process: what is carried survives an interruption."""

import signal

import jax
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.evaluation import periodic
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.jax_utils.keys import run_keys
from tests.app.conftest import rows_of
from tests.app.test_resume import assert_same_run, final_state
from tests.app.tiny import parts_of, tiny_config

SHORT = {"train__num_steps": 20, "checkpoint__every_steps": 20, "evaluation__every_steps": 20}


def posterior(kind, **fields):
    return {"posterior__kind": kind} | {f"posterior__{name}": value for name, value in fields.items()}


POPULATION = {"num_steps": 4, "steps_per_round": 2, "num_temperatures": 3, "ladder": "adaptive", "persistent": True}
ENCODER = {"encoder__kind": "mlp", "encoder__hidden": (16,)}
FROM_ENCODER = {"evaluation__proposal__kind": "encoder"}
AIS = {"kind": "ais", "num_temperatures": 4, "final_num_temperatures": 5}
CASES = {
    # A population on a ladder that adapts, with a step size for every rung, two chains a datum that are kept.
    "tempered": posterior("tempered", **POPULATION, num_chains=2, adapt_steps=8, objective="thermodynamic")
    | {f"evaluation__estimator__{name}": value for name, value in AIS.items()},
    # A metric that is estimated from step to step, an encoder that learns the ends of the chains.
    "tempered_from_encoder": posterior("tempered", **POPULATION, **ENCODER, precondition=True),
    # An average of the parameters, transposed images, classes.
    "all_options": posterior("variational", **ENCODER, num_draws=2, kl_warmup_steps=5)
    | FROM_ENCODER
    | {"prior__kind": "clustered", "prior__num_clusters": 10, "prior__num_classes": 10, "data__labels": True}
    | {"likelihood__kind": "discretized_logistic", "likelihood__levels": 17}
    | {"data__transpose": True, "optimizer__average_decay": 0.9},
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_users_run_it")]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    for name in ("draw_samples", "draw_held_out"):
        monkeypatch.setattr(periodic, name, lambda *_: None)


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
    stopped = train_and_evaluate(
        config, tmp_path / "parts", watch=lambda row: row["step"] == 10 and signal.raise_signal(signal.SIGTERM)
    )
    assert stopped is Outcome.INTERRUPTED
    assert train_and_evaluate(config, tmp_path / "parts") is Outcome.FINISHED
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    first = parts_of(config, 1437, run_keys(config.seed).state).state
    if name == "tempered_from_encoder":
        assert np.abs(np.asarray(state.sampler.metric.likelihood)).max() > 1
    if "encoder" in state.params:
        pairs = zip(*(jax.tree.leaves(each.params["encoder"]) for each in (first, state)), strict=True)
        assert all(np.any(a != b) for a, b in pairs)
    if name == "all_options":
        jax.tree.map(np.testing.assert_array_equal, kaem.load_run(tmp_path / "whole").params, state.average)
        assert np.any(jax.tree.leaves(state.average["decoder"])[0] != jax.tree.leaves(state.params["decoder"])[0])
    if name == "tempered":
        assert state.sampler.chains.z.shape == (1437, 128)
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


CONV = {
    "decoder__kind": "conv", "posterior__kind": "langevin", "posterior__num_steps": 3, "train__num_steps": 20,
    "evaluation__every_steps": 20, "checkpoint__every_steps": 20, "data__name": "npz", "data__num_held_out": 20,
}  # fmt: skip


def test_where_the_data_lie_and_how_many_updates_a_call_makes_change_nothing(tmp_path, rng):
    """Resident or sent batch by batch, with chains that are kept under the data's own numbers.

    Other programs, whose rounding differs with some of XLA's emitters and processors, and which Adam enlarges.
    """
    low = rng.integers(0, 256, (120, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=np.kron(low, np.ones((1, 4, 4, 1), np.uint8)))  # 8 x 8 in colour
    given, found = CONV | {"data__path": str(tmp_path / "images.npz"), "posterior__persistent": True}, []
    for storage, per_call in (("device", 1), ("host", 1), ("device", 5)):
        config = tiny_config(**given, data__storage=storage, train__steps_per_call=per_call)
        found.append(trained(config, tmp_path / f"{storage}{per_call}")[1].params)
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), found[0], other)
