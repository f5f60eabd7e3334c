"""Training with every sampler in this process: what each carries survives an interruption bit for bit."""

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax import train
from kaem_jax.data import batch_indices
from kaem_jax.inference.samplers import SharedDraws
from kaem_jax.kan.regularizers import penalties
from kaem_jax.train import Outcome, train_and_evaluate
from kaem_jax.training.keys import run_keys
from kaem_jax.training.log import ProgressReporter
from kaem_jax.training.penalty import Penalties
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


@pytest.fixture(autouse=True)
def _setting(monkeypatch):
    monkeypatch.setattr(train, "draw_progress", lambda *_: None)
    with jax.numpy_dtype_promotion("standard"):
        yield


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_an_interrupted_run_ends_where_the_other_one_does(tmp_path, monkeypatch, name):
    config = tiny_config(**(SHORT | CASES[name]))
    assert train_and_evaluate(config, tmp_path / "whole") is Outcome.FINISHED
    logged = rows(tmp_path / "whole")
    assert all(np.isfinite(value) for row in logged for value in row.values())
    state = final_state(tmp_path / "whole")
    if name == "comonotone_pcnl":
        assert all(0 < row["train/acceptance"] <= 1 for row in logged if "train/acceptance" in row)
    if name in (
        "comonotone_pcnl",
        "neural_ula",
        "sobol_proposals",
    ):  # tests/training/test_resume.py sees all they carry
        return

    def interrupt(self, row):
        if row["step"] == 10:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ProgressReporter, "report", interrupt)
    assert train_and_evaluate(config, tmp_path / "parts") is Outcome.INTERRUPTED
    assert train_and_evaluate(config, tmp_path / "parts") is Outcome.FINISHED
    assert_same_run(tmp_path / "parts", tmp_path / "whole")

    if name in ("preconditioned", "tempered_from_encoder"):
        assert np.abs(np.asarray(state.sampler.metric.likelihood)).max() > 1
    if name in ("preconditioned", "tempered_from_encoder", "variational"):
        first = parts_of(config, 1437, run_keys(config.seed).state).state.params["encoder"]
        assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (first, state.params["encoder"])), strict=True))
    if name == "persistent_mala":
        start = parts_of(config, 1437, run_keys(config.seed).state).state.sampler.chains
        assert start.shape == (2, 1437, 2)
        # Twenty batches of 32, less than an epoch: their chains moved on but for rejected moves, nobody else's did.
        moved = np.any(np.asarray(state.sampler.chains != start), axis=(0, 2))
        seen = np.concatenate([batch_indices(i, size=1437, batch_size=32, seed=config.seed) for i in range(20)])
        assert moved[seen].mean() > 0.95
        assert not np.delete(moved, seen).any()
        sizes = [row["train/step_size"] for row in logged if "train/step_size" in row]
        assert sizes[0] != sizes[2]
        assert len(set(sizes[4:])) == 1  # frozen after the warm-up
        assert [row["step"] for row in logged if "train/grid_change" in row] == [4, 8, 12, 16]
    if name == "all_options":
        assert float(state.params["likelihood"]["log_sigma"]) == pytest.approx(np.log(0.1), rel=1e-5)
        weights = [tree["decoder"] for tree in (kaem.load_run(tmp_path / "whole").params, state.average, state.params)]
        jax.tree.map(np.testing.assert_array_equal, weights[0], weights[1])
        assert np.any(jax.tree.leaves(weights[1])[0] != jax.tree.leaves(weights[2])[0])
    if name == "tempered":
        assert state.sampler.chains.z.shape == (3, 2, 1437, 2)
        betas, sizes = np.asarray(state.sampler.betas), np.asarray(state.sampler.step_size)
        assert (betas[0], betas[2]) == (0, 1)
        assert betas[1] not in (0, 0.125, 1)
        assert sizes[0] == np.float32(config.posterior.step_size)  # exact draws have no moves to adapt
        assert sizes[1] > sizes[2]
        assert all(0 < row["train/swap_acceptance"] <= 1 for row in logged if "train/swap_acceptance" in row)
        assert [row["eval/num_temperatures"] for row in logged if "eval/num_temperatures" in row] == [4, 5]
        # Evaluation goes on with what training adapted, with chains of its own length; so it is read back.
        loaded = kaem.load_run(tmp_path / "whole")
        for frozen in (loaded.posterior, loaded.training_posterior):
            np.testing.assert_array_equal(frozen.state.betas, betas)
            np.testing.assert_array_equal(frozen.state.step_size, sizes)
            assert frozen.state.chains is None
        assert (loaded.posterior.sampler.num_steps, loaded.training_posterior.sampler.num_steps) == (10, 4)


@pytest.mark.slow
def test_many_grid_updates_stay_finite(tmp_path):
    """On digits, an update every fourth step: the breakpoints leave their places, the loss goes down."""
    config = tiny_config(
        decoder__kind="kan",
        train__num_steps=100,
        grid_update__first_step=4,
        grid_update__growth=1.0,
        evaluation__every_steps=50,
        checkpoint__every_steps=100,
    )
    assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    logged = rows(tmp_path / "run")
    assert all(np.isfinite(value) for row in logged for value in row.values())
    updates = [row for row in logged if "train/grid_change" in row]
    assert len(updates) >= 4
    assert max(row["train/grid_change"] for row in updates) <= 0.05
    state = final_state(tmp_path / "run")
    grid = np.asarray(state.params["prior"]["bank"]["grid"])
    assert np.max(np.abs(np.diff(grid) - np.diff(grid).mean())) > 1e-3
    evaluations = [row["eval/log_likelihood"] for row in logged if "eval/log_likelihood" in row]
    assert evaluations[-1] > evaluations[0]


@pytest.mark.slow
def test_penalties_add_up_with_their_weights():
    """Proportions by closed form; the functions' part against the bank's own penalties."""
    config = tiny_config(prior__proportions="learned")
    model = config.model((8, 8))
    params = model.init(jax.random.key(0))
    params["prior"]["logits"] = jnp.log(jnp.asarray([[0.2, 0.8], [0.5, 0.5]]))
    z = jax.random.normal(jax.random.key(1), (40, 2))
    draws = SharedDraws(z, jnp.full((3, 40), 1 / 40), {})
    alpha = np.array([[0.2, 0.8], [0.5, 0.5]])
    functions = penalties(model.prior.bank, params["prior"]["bank"], z[..., None])
    for weights, expected in (
        ({}, 0.0),
        ({"dirichlet": 0.5}, -0.5 * np.sum(np.log(alpha))),
        ({"proportion_entropy": 2.0}, -2.0 * np.sum(alpha * np.log(alpha))),
        ({"l1": 0.1, "difference": 0.2}, 0.1 * functions["l1"] + 0.2 * functions["difference"]),
        ({"entropy": 3.0, "coefficient": 1.0}, 3 * functions["entropy"] + functions["coefficient"]),
    ):
        np.testing.assert_allclose(Penalties(**weights)(model, params, draws), expected, rtol=1e-5)


@pytest.mark.slow
def test_penalties_are_at_the_inputs_of_every_bank(rng):
    """Of a non-centred prior at z, not at its standard normal latents; of a KAN decoder layer by layer. Weights of
    the draws count."""
    config = tiny_config(decoder__kind="kan", decoder__hidden=(3,))
    model = dataclasses.replace(config, prior=kaem.NonCentredPrior(config.prior)).model((8, 8))
    params, prior = model.init(jax.random.key(0)), model.prior.centred
    params["prior"]["bank"]["coefficients"] += jnp.linspace(0, 3, params["prior"]["bank"]["coefficients"].shape[-1])
    latents = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    weights = rng.dirichlet(np.ones(40), 3).astype(np.float32)
    table = prior.tabulate(params["prior"])
    z = prior.quantile(table, jax.scipy.special.ndtr(latents))
    assert np.abs(np.asarray(z - latents)).max() > 0.1
    inputs = [(prior.bank, params["prior"]["bank"], z[..., None])]
    layers = model.network.layer_inputs(params["decoder"], model.prior.features(table, latents))
    for i, (bank, x) in enumerate(zip(model.network.layers, layers, strict=False)):
        inputs.append((bank, params["decoder"][f"bank_{i}"], x[..., None]))
    assert len(inputs) == 3
    each = [penalties(bank, leaves, x, jnp.asarray(weights.mean(axis=0))) for bank, leaves, x in inputs]
    expected = sum(2 * values["l1"] + 3 * values["entropy"] + 0.5 * values["difference"] for values in each)
    draws = SharedDraws(latents, jnp.asarray(weights), {})
    found = Penalties(l1=2.0, entropy=3.0, difference=0.5)(model, params, draws)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_penalties_of_a_layer_do_not_pull_the_layers_before_it():
    """The inputs of a bank are fixed: other functions in the second layer leave the gradients of the first alone."""
    config = tiny_config(decoder__kind="kan", decoder__hidden=(3,))
    model = config.model((8, 8))
    params = model.init(jax.random.key(0))
    draws = SharedDraws(jax.random.normal(jax.random.key(1), (40, 2)), jnp.full((3, 40), 1 / 40), {})

    def slopes(scale):
        second = params["decoder"]["bank_1"]
        second = second | {"coefficients": scale * second["coefficients"]}
        own = params | {"decoder": params["decoder"] | {"bank_1": second}}
        found = jax.grad(lambda p: Penalties(l1=1.0)(model, p, draws))(own)["decoder"]
        return found["bank_0"]["coefficients"], found["bank_1"]["coefficients"]

    (first, second), (other_first, other_second) = slopes(1.0), slopes(30.0)
    np.testing.assert_allclose(first, other_first, rtol=1e-4)
    assert np.abs(np.asarray(first)).max() > 0
    assert np.abs(np.asarray(second - other_second)).max() > 1e-3
