"""The training step against the same calls by hand: whose keys, rows and chains it takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kaem_jax as kaem
from kaem_jax.app.data import PIXELS
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import Importance, ProposalChains, Sampler, SharedDraws
from kaem_jax.jax_utils import keys as keys_of
from kaem_jax.mcmc import power_ladder
from kaem_jax.settings.registry import PROPOSALS
from kaem_jax.training.batch import Batch, batch_indices
from kaem_jax.training.loss import posterior_loss
from kaem_jax.training.state import init_train_state
from kaem_jax.training.step import make_train_step
from tests.app.tiny import parts_of, tiny_config
from tests.builders import make_model
from tests.linear_gaussian import Linear

pytestmark = pytest.mark.usefixtures("as_users_run_it")

NUM_DATA = 64


def batch_of(rng, num_updates, shape, num_classes=0):
    """Minibatches of eight, stored in another order than the chains' numbers."""
    data = np.float32(rng.uniform(size=(NUM_DATA, *shape)))
    rows, indices = (np.int32(rng.permutation(NUM_DATA)[: 8 * num_updates]).reshape(num_updates, 8) for _ in range(2))
    classes = rng.integers(0, num_classes, NUM_DATA, np.int32) if num_classes else None
    return Batch(data, rows, indices, classes)


def test_no_two_seeds_steps_or_uses_share_a_key_or_an_order():
    keys, orders = [], []
    for seed in (0, 1):
        of_run = keys_of.run_keys(seed)
        of_params, root = jax.random.split(of_run.state)
        keys += [*jax.random.split(of_run.evaluation), of_run.figures, of_params]
        keys += [of(seed) for of in (keys_of.inference_key, keys_of.sample_key)]
        keys += [of(root) for of in (keys_of.chain_start_key, keys_of.sampler_params_key)]
        keys += [of(root, step) for of in (keys_of.refit_key, keys_of.stage_key) for step in (3, 4)]
        keys += [*keys_of.evaluation_keys(seed), *(key for step in range(4) for key in keys_of.step_keys(root, step))]
        orders += [tuple(batch_indices(epoch, size=9, batch_size=9, seed=seed)) for epoch in range(3)]
    keys += [*jax.random.split(keys_of.marginal_key())]
    numbers = [tuple(jax.random.key_data(key).tolist()) for key in keys]
    assert len(set(numbers)) == len(numbers) == 2 * (5 + 7 + 3 + 4 + 4 * 5) + 2
    assert len(set(orders)) == 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spy(Importance):
    """Proposals of the prior; its metrics say with what it was called."""

    def step(self, key, step, state, model, params, x, indices=None):
        draws, state = super().step(key, step, state, model, params, x, indices)
        seen = {"key": jax.random.key_data(key), "step": jnp.asarray(step), "indices": indices, "x": x}
        return dataclasses.replace(draws, metrics=seen), state  # without log_evidence, which would replace the loss

    def loss(self, key, model, params, x, draws):
        return jax.random.uniform(key)


def test_each_update_has_its_own_keys_rows_mirrors_and_numbers(rng):
    """Three updates in one call report the last one; a second call with the same data draws anew.

    Rows and columns change places, and colours do not. The draws of the prior in the loss are not the proposals.
    """
    spy, still = Spy(num_samples=16), optax.set_to_zero()
    model = make_model("neural", num_steps=2, data_shape=(4, 4, 2))
    batch = batch_of(rng, 3, (4, 4, 2))
    state = init_train_state(jax.random.key(1), model, still, spy, NUM_DATA)
    first, params, root = state, jax.device_get(state.params), jnp.copy(state.root_key)
    step, turned = make_train_step(model, still, spy, transpose=True), 0

    @jax.jit
    def by_hand(keys, x):
        draws, _ = spy.step(keys.draw, 0, (), model, params, x)
        return posterior_loss(keys.loss, model, params, x, draws)[0]

    for count in (2, 5):
        keys = keys_of.step_keys(root, count)
        state, found = step(state, batch)
        x = np.array(batch.stored[batch.rows[2]])
        chosen = np.asarray(jax.random.bernoulli(keys.transpose, shape=(8, 1, 1, 1))).ravel()
        x[chosen] = x[chosen].swapaxes(1, 2)
        turned += chosen.sum()
        np.testing.assert_array_equal(found["key"], jax.random.key_data(keys.draw))
        assert int(found["step"]) == count
        np.testing.assert_array_equal(found["indices"], batch.indices[2])
        np.testing.assert_array_equal(found["x"], x)
        assert float(found["sampler_loss"]) == float(jax.random.uniform(keys.sampler))
        assert float(found["loss"]) == pytest.approx(float(by_hand(keys, x)), rel=1e-5)
    assert 0 < turned < 16
    assert first.step.is_deleted()  # donated


@dataclasses.dataclass(frozen=True)
class Told(Sampler):
    def check(self, prior):
        pass

    def step(self, key, step, state, model, params, x, indices=None):
        at = jnp.sin(state + 10.0 * step + indices + jnp.mean(x.reshape(len(x), -1), axis=1))  # [B]
        z = 2 * jnp.stack([jnp.sin(7 * at), jnp.cos(9 * at)], axis=-1)
        return SharedDraws(z, jax.nn.softmax(at[:, None] * jnp.arange(len(x)), axis=-1), {}), state


@dataclasses.dataclass(frozen=True)
class Penalised(Linear):
    def init(self, key):
        return {"weight": jax.random.normal(key, (2, 3)), "bias": jnp.zeros(3)}

    def penalty(self, params):
        return 1e3 * jnp.sum(params["bias"])


def test_a_step_descends_loss_and_penalties_and_averages(rng):
    """The average moves by the smaller weight."""
    batch, sampler, optimizer = batch_of(rng, 1, (3,)), Told(), optax.sgd(1e-3)
    model = make_model(decoder=Penalised((3,)), data_shape=(3,), base_density="uniform")
    fresh = init_train_state(jax.random.key(0), model, optimizer, Importance(), NUM_DATA, averaged=True)
    jax.tree.map(np.testing.assert_array_equal, fresh.average, fresh.params)
    step = make_train_step(model, optimizer, sampler, average_decay=0.3)
    params, average = jax.device_get(fresh.params), jax.tree.map(lambda leaf: np.asarray(leaf) + 1, fresh.params)

    @jax.jit
    def by_hand(params, count):
        draws, _ = sampler.step(None, count, 0.25, model, params, batch.data(0), batch.indices[0])

        def loss(params):
            value, _ = posterior_loss(None, model, params, batch.data(0), draws)
            return value + 1e3 * jnp.sum(params["decoder"]["bias"]), value

        (_, value), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        norm = jnp.sqrt(sum(jnp.sum(slope**2) for slope in jax.tree.leaves(slopes)))
        return value, norm, jax.tree.map(lambda leaf, slope: leaf - 1e-3 * slope, params, slopes)

    for count, decay in ((0, 0.1), (20, 0.3)):  # (1 + t) / (10 + t), at most 0.3
        value, norm, moved = by_hand(params, count)
        state = dataclasses.replace(
            fresh, step=jnp.int32(count), params=jax.tree.map(jnp.asarray, params), sampler=jnp.float32(0.25),
            average=jax.tree.map(jnp.asarray, average), root_key=jnp.copy(fresh.root_key),
        )  # fmt: skip
        after, metrics = step(state, batch)
        assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-4)
        assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
        assert int(after.step) == count + 1
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, moved)
        expected = jax.tree.map(lambda new, old, own=decay: own * old + (1 - own) * new, moved, average)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), after.average, expected)
        assert after.evaluated is after.average


def test_each_datum_has_its_own_class_in_the_bound(rng):
    """The loss is that of the batch's own rows' classes, also in the second update of one call: log p(x, y, z) instead
    of log p(x, z), which with one draw differ by log p(y | z)."""
    batch, still = batch_of(rng, 2, (3,), num_classes=2), optax.set_to_zero()
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=2, shape="gaussian")
    model, sampler = make_model(prior, data_shape=(3,)), kaem.Variational(encoder=kaem.MLP((4,)))
    state = init_train_state(jax.random.key(0), model, still, sampler, NUM_DATA)
    params, keys = jax.device_get(state.params), keys_of.step_keys(jnp.copy(state.root_key), 1)
    _, metrics = make_train_step(model, still, sampler)(state, batch)

    @jax.jit
    def by_hand(labels):
        draws, _ = sampler.step(keys.draw, 1, (), model, params, batch.data(1))
        log_shares = model.prior.bind(params["prior"]).log_class_probabilities(draws.z)[0]
        without = posterior_loss(keys.loss, model, params, batch.data(1), draws)[0]
        return without - jnp.mean(jnp.take_along_axis(log_shares, labels[:, None], axis=-1))

    classes = batch.classes[batch.indices[1]]
    own, others = float(by_hand(classes)), float(by_hand(1 - classes))
    assert float(metrics["loss"]) == pytest.approx(own, rel=1e-4)
    assert abs(own - others) > 1e-2


@dataclasses.dataclass(frozen=True)
class Keyed(Told):
    def init_params(self, key, model):
        return {"encoder": jax.random.key_data(key)}

    def init(self, key, model, params, num_data):
        return jax.random.key_data(key), params["encoder"], num_data


def test_the_first_state_has_keys_of_its_own():
    """Model, encoder and kept chains against direct calls with the run's keys."""
    model, key = make_model(), jax.random.key(5)
    key_params, root = jax.random.split(key)
    state = init_train_state(key, model, optax.adam(1.0), Keyed(), 9)
    expected = jax.jit(model.init)(key_params) | {"encoder": jax.random.key_data(keys_of.sampler_params_key(root))}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.params, expected)
    of_chains, of_params, num_data = state.sampler
    np.testing.assert_array_equal(of_chains, jax.random.key_data(keys_of.chain_start_key(root)))
    np.testing.assert_array_equal(of_params, expected["encoder"])
    assert (int(num_data), int(state.step), state.average) == (9, 0, None)
    np.testing.assert_array_equal(jax.random.key_data(state.root_key), jax.random.key_data(root))


def test_a_run_judges_the_averaged_parameters_with_the_sampler_of_evaluation():
    config = tiny_config(posterior__kind="tempered", evaluation__proposal__kind="laplace")
    parts = parts_of(config, 4)
    average = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, parts.state.params)
    state = dataclasses.replace(parts.state, average=average)
    run = Run.of_state(config, parts.model, state, 60, PIXELS)
    assert run.params is average
    assert (run.step, run.training_posterior.step, run.posterior.step) == (60, 60, 60)
    posterior = run.training_posterior
    np.testing.assert_array_equal(posterior.sampler.ladder_of(posterior.step, posterior.state), power_ladder(5, 3.0))
    assert run.training_posterior.sampler == parts.sampler
    assert type(run.posterior.sampler) is ProposalChains


def test_evaluation_draws_from_its_own_proposal():
    """From a proposal by chains of its own; from the prior by the sampler of training with as many moves."""
    of_encoder = {"posterior__encoder__kind": "mlp", "posterior__encoder__hidden": (5,)}
    own = {"posterior__kind": "langevin", "evaluation__posterior_steps": 8}
    for kind in ("laplace", "encoder"):
        config = tiny_config(**own, **of_encoder, evaluation__posterior_chains=6, evaluation__proposal__kind=kind)
        sampler = config.evaluation_sampler()
        assert type(sampler.proposal) is PROPOSALS.get(kind)
        assert (sampler.num_steps, sampler.num_chains) == (8, 6)
    assert sampler.proposal.encoder == config.posterior.encoder == kaem.MLP((5,))
    assert config.proposal(may_miss=True) == kaem.Laplace()  # it would read what is missing as 0
    config = tiny_config(**own)
    assert config.evaluation_sampler() == dataclasses.replace(config.posterior, num_steps=8)
    assert tiny_config().evaluation_sampler() == tiny_config().posterior
