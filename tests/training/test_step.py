"""The training step and the grid update against the same calls by hand: whose keys, rows and chains they take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.data import PIXELS, Batch
from kaem_jax.inference.samplers import ChainDraws, Importance, ProposalChains, Sampler
from kaem_jax.kan.grid import weighted_quantiles
from kaem_jax.mcmc import annealed_exponent, power_ladder
from kaem_jax.priors.grid_update import update_grid
from kaem_jax.runs import experiment
from kaem_jax.runs.run import Run
from kaem_jax.settings.registry import PROPOSALS
from kaem_jax.training.keys import (
    chain_start_key,
    evaluation_keys,
    inference_key,
    marginal_key,
    run_keys,
    sample_key,
    sampler_params_key,
    state_keys,
    step_keys,
)
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.penalty import Penalties
from kaem_jax.training.step import GridUpdate, make_grid_update
from tests.training.tiny import parts_of, tiny_config

NUM_DATA = 64


@pytest.fixture(autouse=True)
def _setting():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def batch(rng):
    """Three minibatches of eight, stored in another order than the chains' numbers."""
    data = jnp.asarray(rng.uniform(size=(NUM_DATA, 8, 8)), jnp.float32)
    rows, indices = (jnp.asarray(rng.permutation(NUM_DATA)[:24].reshape(3, 8), jnp.int32) for _ in range(2))
    return Batch(data, rows, indices)


def test_no_two_seeds_steps_or_uses_share_a_key():
    keys = []
    for seed in (0, 1):
        of_run = run_keys(seed)
        of_params, root = state_keys(of_run.state)
        keys += [of_run.evaluation, of_run.figures, of_params, *evaluation_keys(seed), inference_key(seed)]
        keys += [sample_key(seed), chain_start_key(root), sampler_params_key(root)]
        keys += [key for step in range(4) for key in step_keys(root, step)]
    keys += [*jax.random.split(marginal_key())]
    numbers = [tuple(jax.random.key_data(key).tolist()) for key in keys]
    assert len(set(numbers)) == len(numbers) == 2 * (3 + 8 + 1 + 3 + 4 * 6) + 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spy(Importance):
    """Proposals of the prior; its metrics say with what it was called."""

    def advance(self, key, step, state, model, params, x, indices=None):
        draws, state = super().advance(key, step, state, model, params, x, indices)
        seen = {"key": jax.random.key_data(key), "step": jnp.asarray(step), "indices": indices, "x": x}
        return dataclasses.replace(draws, metrics=seen), state  # without log_evidence, which would replace the loss

    def loss(self, key, model, params, x, draws):
        return jax.random.uniform(key)


def test_each_update_has_its_own_keys_rows_and_numbers(batch):
    """Three updates in one call report the last one; a second call with the same data draws anew."""
    spy = Spy(num_samples=64)
    config = dataclasses.replace(tiny_config(loss__negative_phase="sampled"), posterior=spy)
    parts = parts_of(config, NUM_DATA)
    model, step = parts.model, parts.train_step()
    root, before, state = parts.state.root_key, jax.tree.map(jnp.copy, parts.state.params), parts.state
    expected = {count: step_keys(root, count) for count in (0, 2, 5)}
    for count in (2, 5):
        state, found = step(state, batch)
        keys = expected[count]
        np.testing.assert_array_equal(found["key"], jax.random.key_data(keys.draw))
        assert int(found["step"]) == count
        np.testing.assert_array_equal(found["indices"], batch.indices[2])
        np.testing.assert_array_equal(found["x"], batch.stored[batch.rows[2]])
        assert float(found["sampler_loss"]) == float(jax.random.uniform(keys.sampler))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(parts.state.params))  # donated
    # The loss of a single update, whose draws of the prior are not the proposals.
    once, keys = parts_of(config, NUM_DATA), expected[0]
    draws, _ = spy.advance(keys.draw, 0, (), model, before, batch.data(0), batch.indices[0])
    wanted, _ = posterior_loss(keys.loss, model, before, batch.data(0), draws, negative_phase="sampled")
    one = Batch(batch.stored, batch.rows[:1], batch.indices[:1])
    _, metrics = once.train_step()(once.state, one)
    np.testing.assert_array_equal(metrics["indices"], batch.indices[0])
    assert float(metrics["loss"]) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["langevin", "tempered"])
def test_the_first_state_has_keys_of_its_own(kind):
    """Model, encoder and kept chains against direct calls with the run's keys."""
    population = {"posterior__num_temperatures": 3, "posterior__refresh": False} if kind == "tempered" else {}
    config = tiny_config(posterior__kind=kind, posterior__persistent=True, posterior__num_chains=2, **population)
    key = jax.random.key(5)
    parts = parts_of(config, 9, key)
    key_params, root = state_keys(key)
    params = parts.model.init(key_params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), parts.state.params, params)
    shape = (3, 2, 9) if kind == "tempered" else (2, 9)
    table = parts.model.prior.tabulate(params["prior"])
    chains = parts.state.sampler.chains
    found = chains.z if kind == "tempered" else chains
    np.testing.assert_allclose(found, parts.model.prior.sample(chain_start_key(root), table, shape), atol=1e-6)
    assert jax.random.key_data(parts.state.root_key).tolist() == jax.random.key_data(root).tolist()
    learned = {"posterior__kind": "variational", "posterior__encoder__hidden": (4,)}
    parts = parts_of(tiny_config(**learned, evaluation__proposal__kind="encoder"), 9, key)
    encoder = parts.sampler.init_params(sampler_params_key(root), parts.model)["encoder"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), parts.state.params["encoder"], encoder)


@pytest.mark.slow
def test_a_grid_update_is_that_of_the_last_minibatchs_draws(batch):
    """Weighted draws, in the coordinates of the bank: not the latents of a non-centred prior. KAN layers move too."""
    config = tiny_config(
        decoder__kind="kan", decoder__hidden=(3,), decoder__grid_size=4,
        grid_update__first_step=1, grid_update__uniform_fraction=0.2, grid_update__max_total_variation=0.9,
        grid_update__max_layer_change=1.0,
    )  # fmt: skip
    config = dataclasses.replace(config, prior=kaem.NonCentredPrior(config.prior))
    strict = dataclasses.replace(config.grid_update, max_layer_change=1e-6)
    parts = parts_of(config, NUM_DATA)
    model, params = parts.model, parts.state.params
    key_draw, key_reach = jax.random.split(step_keys(parts.state.root_key, 0).grid)
    table = model.prior.tabulate(params["prior"])
    latents, weights = parts.sampler.advance(key_draw, 0, (), model, params, batch.data(2))[0].pooled()
    z = model.prior.coordinates(table, latents)
    limits = {"uniform_fraction": 0.2, "max_total_variation": 0.9}
    prior, info = update_grid(model.prior.centred, params["prior"], z, weights, **limits)
    of_prior = model.prior.sample(key_reach, table, (4096,))
    inputs, furthest = (
        model.network.layer_inputs(params["decoder"], model.prior.features(table, z))
        for z in (latents, jnp.concatenate([latents.reshape(-1, *of_prior.shape[1:]), of_prior]))
    )
    before = jax.device_get(params)
    average = jax.tree.map(lambda leaf: leaf + 1, params)
    momentum = jax.tree.map(jnp.ones_like, parts.state.opt_state)
    started = dataclasses.replace(parts.state, average=average, opt_state=momentum)
    state, found = make_grid_update(model, parts.sampler, settings=config.grid_update)(started, batch)
    np.testing.assert_allclose(found["grid_change"], np.max(info.total_variation), rtol=1e-3, atol=1e-5)
    assert found["grid_accepted"] == 1
    assert 0 < found["layer_change"] < 0.9
    assert found["layers_accepted"] == 1
    keeps = make_grid_update(model, parts.sampler, settings=strict)
    # What belongs to the curves of before begins anew: their means, and the optimiser's momentum.
    jax.tree.map(np.testing.assert_array_equal, state.average["decoder"], state.params["decoder"])
    reset = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        names = [getattr(entry, "key", getattr(entry, "name", None)) for entry in path]
        if "mu" in names and names[-1] == "coefficients":
            np.testing.assert_array_equal(leaf, 0)
            reset.add(jax.tree_util.keystr(path))
        else:
            np.testing.assert_array_equal(leaf, 1)
    assert len(reset) == 3  # of the prior, and of two layers
    again, refused = keeps(dataclasses.replace(state, params=before, step=jnp.zeros_like(state.step)), batch)
    assert refused["layers_accepted"] == 0
    np.testing.assert_allclose(refused["layer_change"], found["layer_change"], rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, again.params["decoder"], before["decoder"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state.params["prior"], prior)
    assert np.abs(np.asarray(prior["bank"]["grid"]) - before["prior"]["bank"]["grid"]).max() > 0.05
    for i, x in enumerate(inputs[:2]):
        quantiles = np.asarray(weighted_quantiles(x, weights, jnp.linspace(0, 1, 5))).T
        low, high = np.min(furthest[i], axis=0), np.max(furthest[i], axis=0)  # as far as draws of the prior reach
        even = np.linspace(low, high, 5, axis=-1)
        grid = state.params["decoder"][f"bank_{i}"]["grid"][:, 0]
        np.testing.assert_allclose(grid[:, 1:-1], (0.2 * even + 0.8 * quantiles)[:, 1:-1], atol=1e-3)
        np.testing.assert_allclose(grid[:, [0, -1]], np.stack([low, high], axis=-1), atol=1e-3)
        assert np.abs(grid - before["decoder"][f"bank_{i}"]["grid"][:, 0]).max() > 0.05


@dataclasses.dataclass(frozen=True)
class Told(Sampler):
    """Its draws say with which step, state and data they were asked for."""

    def check(self, prior):
        pass

    def advance(self, key, step, state, model, params, x, indices=None):
        at = jnp.sin(state + 10.0 * step + indices)
        return ChainDraws(2 * jnp.broadcast_to(at[None, :, None], (1, len(x), 2)), {}), state


@pytest.mark.slow
def test_a_grid_update_asks_for_the_chains_of_its_data_as_they_are(batch):
    """Those of the last minibatch, at this step, with the step sizes and ladder that training has reached."""
    config = tiny_config(grid_update__first_step=1, grid_update__max_total_variation=0.9)
    parts = parts_of(config, NUM_DATA)
    model, params = parts.model, jax.device_get(parts.state.params)
    state = dataclasses.replace(parts.state, step=jnp.asarray(4, jnp.int32), sampler=jnp.float32(0.3))
    z = np.asarray(2 * np.sin(0.3 + 40 + np.asarray(batch.indices[-1], np.float32)))
    z = jnp.broadcast_to(z[:, None], (len(z), 2))
    limits = {"uniform_fraction": config.grid_update.uniform_fraction, "max_total_variation": 0.9}
    prior, _ = update_grid(model.prior, params["prior"], z, None, **limits)
    found, _ = make_grid_update(model, Told(), settings=config.grid_update)(state, batch)
    np.testing.assert_allclose(found.params["prior"]["bank"]["grid"], prior["bank"]["grid"], atol=1e-5)
    assert np.abs(prior["bank"]["grid"] - params["prior"]["bank"]["grid"]).max() > 0.05


@pytest.mark.parametrize("per_call", [1, 5, 7])
def test_no_grid_update_comes_after_the_last_training_step(per_call):
    """Steps are rounded to whole calls, and 58 of 60 would become the last one."""
    for first in (56, 58):
        assert GridUpdate(first_step=first).steps(60, 5) == {55}
    assert GridUpdate(first_step=6, growth=3.0).steps(60) == {6, 24}  # the next would be 78
    assert GridUpdate().steps(60) == set()
    for first in range(1, 60):
        steps = GridUpdate(first_step=first, growth=1.5).steps(60, per_call)
        assert all(0 < step < 60 and step % per_call == 0 for step in steps)


def test_the_annealed_ladder_spans_the_run():
    """From the first exponent at step 0 to the last one at the end, in the cycles that were asked for."""
    config = tiny_config(
        posterior__kind="tempered", posterior__ladder="annealed", posterior__num_temperatures=4,
        posterior__exponent=4.0, posterior__final_exponent=1.0, posterior__num_cycles=2, posterior__num_steps=2,
        posterior__steps_per_round=1, evaluation__proposal__kind="laplace",
    )  # fmt: skip
    parts = parts_of(config, 4)
    sampler = config.sampler
    for step, position in ((0, 0.0), (15, 0.5), (30, 0.0), (59, 59 / 30 - 1)):  # of 60 steps
        exponent = 1 + 1.5 * (1 + np.cos(np.pi * position))
        expected = np.linspace(0, 1, 4) ** exponent
        np.testing.assert_allclose(sampler.ladder_at(parts.state.sampler, step), expected, rtol=1e-5)
    ladder = power_ladder(4, annealed_exponent(jnp.asarray(59), 60, 2, 4.0, 1.0))
    np.testing.assert_allclose(sampler.frozen(parts.state.sampler, 60).betas, ladder, rtol=1e-6)


def test_a_run_judges_the_averaged_parameters_with_the_sampler_of_evaluation():
    config = tiny_config(
        posterior__kind="tempered", posterior__ladder="annealed", posterior__num_temperatures=4,
        evaluation__proposal__kind="laplace",
    )  # fmt: skip
    parts = parts_of(config, 4)
    average = jax.tree.map(lambda leaf: leaf + 1, parts.state.params)
    state = dataclasses.replace(parts.state, average=average)
    run = Run.of_state(config, parts.model, state, 60, PIXELS)
    assert run.params is average
    assert (run.step, run.training_posterior.step, run.posterior.step) == (60, 60, 60)
    np.testing.assert_array_equal(run.training_posterior.state.betas, parts.sampler.ladder_at(state.sampler, 59))
    assert run.training_posterior.sampler == parts.sampler
    assert type(run.posterior.sampler) is ProposalChains


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnScale(Penalties):
    """A thousand times the logarithm of the likelihood's scale."""

    def __call__(self, model, params, draws):
        return 1e3 * params["likelihood"]["log_sigma"]


def test_a_step_descends_loss_and_penalties_and_averages(batch):
    """The objective that is given; the average moves by the smaller weight."""
    config = tiny_config(
        posterior__kind="tempered", posterior__num_temperatures=3, posterior__num_steps=2,
        posterior__steps_per_round=1, loss__objective="thermodynamic", optimizer__average_decay=0.3,
        likelihood__learn_sigma=True,
    )  # fmt: skip
    parts = parts_of(dataclasses.replace(config, penalties=OnScale()), NUM_DATA)
    before, keys = jax.tree.map(jnp.copy, parts.state.params), step_keys(parts.state.root_key, 0)
    one = Batch(batch.stored, batch.rows[:1], batch.indices[:1])
    draws, _ = parts.sampler.advance(
        keys.draw, 0, parts.state.sampler, parts.model, before, one.data(0), one.indices[0]
    )
    wanted, said = posterior_loss(keys.loss, parts.model, before, one.data(0), draws, objective="thermodynamic")
    at_posterior = parts.model.log_likelihood(before, draws.z, one.data(0))
    assert float(said["log_likelihood"]) == pytest.approx(float(jnp.mean(at_posterior)), rel=1e-4)
    other, _ = posterior_loss(keys.loss, parts.model, before, one.data(0), draws)
    assert abs(float(wanted - other)) > 1e-2
    start = jax.tree.map(lambda leaf: leaf + 1, before)
    after, metrics = parts.train_step()(dataclasses.replace(parts.state, average=start), one)
    assert float(metrics["loss"]) == pytest.approx(float(wanted), rel=1e-4)
    assert float(metrics["grad_norm"]) > 900
    averaged, learned = (float(p["likelihood"]["log_sigma"]) for p in (after.average, after.params))
    first = float(before["likelihood"]["log_sigma"]) + 1
    assert (averaged - learned) / (first - learned) == pytest.approx(0.1, rel=1e-3)  # at the first step less than 0.3


def test_a_run_hands_its_groups_to_the_step(monkeypatch):
    seen = {}
    monkeypatch.setattr(experiment, "make_train_step", lambda *given, **options: seen.update(options, given=given))
    config = tiny_config(
        posterior__kind="tempered", loss__objective="steppingstone", prior__proportions="learned",
        penalties__dirichlet=0.25, optimizer__average_decay=0.75, data__flip=True, data__transpose=True,
        likelihood__learn_sigma=False, likelihood__anneal_steps=9,
    )  # fmt: skip
    config.train_step("model", "optimizer")
    assert seen == {
        "given": ("model", "optimizer", config.sampler), "loss": config.loss, "penalties": config.penalties,
        "average_decay": 0.75, "flip": True, "transpose": True, "not_averaged": ("likelihood",),
    }  # fmt: skip
    assert (config.sampler.total_steps, config.penalties.dirichlet) == (60, 0.25)


def test_evaluation_draws_from_its_own_proposal():
    """From a proposal by chains of its own; from the prior by the sampler of training with as many moves."""
    of_encoder = {"posterior__encoder__kind": "mlp", "posterior__encoder__hidden": (5,)}
    steps, chains = {"evaluation__posterior_steps": 8}, {"evaluation__posterior_chains": 6}
    for kind in ("laplace", "encoder"):
        config = tiny_config(
            posterior__kind="langevin", **of_encoder, **steps, **chains, evaluation__proposal__kind=kind
        )
        own = config.evaluation_sampler()
        assert type(own.proposal) is PROPOSALS.get(kind)
        assert (own.num_steps, own.num_chains) == (8, 6)
    assert own.proposal.encoder == config.posterior.encoder == kaem.MLP((5,))
    assert config.proposal(may_miss=True) == kaem.Laplace()  # it would read what is missing as 0
    config = tiny_config(posterior__kind="langevin", **steps)
    assert config.evaluation_sampler() == dataclasses.replace(config.sampler, num_steps=8)
    assert tiny_config().evaluation_sampler() == tiny_config().sampler
