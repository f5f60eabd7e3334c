"""Kept chains that move with the gradient of the loss: their law, their moves one by one, and who rests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kaem_jax as kaem
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.inference.samplers.particles import ParticleDraws
from kaem_jax.jax_utils.keys import step_keys
from kaem_jax.training.batch import Batch
from kaem_jax.training.state import init_train_state
from kaem_jax.training.step import make_train_step
from tests.builders import make_model, step
from tests.inference.stubs import PARAMS, Normal, linear
from tests.truth import assert_within

NUM_DATA, BATCH = 12, 4
ENCODER = kaem.MLP((6,))


@pytest.fixture(scope="module")
def posterior():
    model, params, law, mean, covariance = linear(size=6, sigma=0.7)
    x = np.float32(law.rvs(64, np.random.default_rng(1)))
    return model, params, x, mean(x), covariance


@pytest.mark.parametrize("step_size", [pytest.param(0.2, marks=pytest.mark.slow), 0.6])
def test_the_law_of_kept_chains_is_the_posterior_but_for_a_share_of_half_the_step_size(posterior, step_size):
    """For a normal posterior the variance is 1 + h / 2 times the exact one, once the precision has settled."""
    model, params, x, mean, covariance = posterior
    sampler = kaem.Particles(num_chains=4, step_size=step_size)
    indices = np.arange(64, dtype=np.int32)
    score_of = jax.grad(lambda z: jnp.sum(model.log_joint(params, z, x)))

    def move(state, key):
        draws, state = sampler.step(key, 0, state, model, params, x, indices)
        return sampler.move(jax.random.fold_in(key, 1), state, draws, score_of(draws.z), indices), draws.z

    @jax.jit
    def run(key, precision):
        state, keys = sampler.init(key, model, params, 64), jax.random.split(key, 4500)
        state = state._replace(precision=precision)
        state, _ = jax.lax.scan(lambda state, key: (move(state, key)[0], None), state, keys[:3000])
        return jax.lax.scan(move, state, keys[3000:])

    state, z = run(jax.random.key(3), np.linalg.inv(covariance))
    gap = np.asarray(z, np.float64) - mean
    found = np.einsum("lcbi,lcbj->ij", gap, gap) / gap[..., 0].size
    wanted = (1 + step_size / 2) * covariance
    # 256 chains of 1,500 moves, of which about h in 2 count: entries have errors of about 1 / sqrt(38,000 h).
    error = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert_within(found, wanted, error * np.sqrt(2 / (256 * 1500 * step_size / 2)), 4)
    assert_within(gap.mean((0, 1, 2)), 0, np.sqrt(np.diag(wanted)), 0.02)
    precision = np.linalg.inv(covariance) * (1 + step_size / 2)
    np.testing.assert_allclose(state.precision, precision, rtol=0.05, atol=0.05 * precision.max())


def test_fresh_chains_draw_from_the_posterior_too(posterior):
    """A frozen sampler has no chains: those of `draw` take 100 moves under the precision that training reached."""
    model, params, x, mean, covariance = posterior
    sampler = kaem.Particles(num_chains=200, step_size=0.2)
    state = sampler.init(jax.random.key(0), model, params, 64)
    state = state._replace(precision=np.float32(np.linalg.inv(covariance)))
    frozen = FrozenSampler.freeze(sampler, state, 5)
    assert frozen.state.chains is None
    gap = np.asarray(frozen.draw(jax.random.key(1), model, params, x).z, np.float64) - mean
    found = np.einsum("cbi,cbj->ij", gap, gap) / gap[..., 0].size
    np.testing.assert_allclose(found, covariance / (1 - 0.1), atol=4 * np.sqrt(2 / 12_800) * covariance.max())


def encoded(model, params, x):
    mean, log_scale = jax.jit(model.bind_encoder(ENCODER).apply)(params["encoder"], x)
    return np.asarray(mean), np.exp(np.asarray(log_scale))


@functools.cache
def small():
    """A model of two latents with a learned mean, data, and the sampler."""
    x = np.float32(np.random.default_rng(5).normal(size=(NUM_DATA, 5)))
    return make_model(Normal(), data_shape=(5,)), x, kaem.Particles(encoder=ENCODER, num_chains=2, step_size=0.3)


def kept(state):
    model, _, sampler = small()
    return np.asarray(sampler.kept(state.sampler, model))


def test_an_update_takes_both_gradients_where_the_chains_are_and_then_moves_them():
    """Parameters as by the loss at the positions before the move; each chain by its own score; others stay."""
    model, x, sampler = small()
    optimizer, indices = optax.sgd(0.1), [3, 7, 3, 9]  # a datum twice: one of its moves counts
    state = init_train_state(jax.random.key(0), model, optimizer, sampler, NUM_DATA)
    train_step = make_train_step(model, optimizer, sampler)
    batch = Batch(x, np.int32([indices]), np.int32([indices]))
    state, _ = train_step(state, batch)
    start, first, root = kept(state), jax.device_get(state.params), jnp.copy(state.root_key)
    precision = np.asarray(state.sampler.precision, np.float64)
    assert np.isnan(np.delete(start, [3, 7, 9], axis=1)).all()
    assert np.isfinite(start[:, [3, 7, 9]]).all()
    state, metrics = train_step(state, batch)
    z, scale = start[:, indices], encoded(model, first, x)[1][indices]

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(params, z, ends):
        log_joint = functools.partial(model.log_joint, params)
        return -jnp.mean(log_joint(z, x[np.array(indices)])), log_joint(ends, x[np.array(indices)])

    ends = z + 1e-2 * np.concatenate([np.eye(2), -np.eye(2)])[:, None, None]
    (value, values), (gradient, slope) = loss(first, z, ends)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    for group in ("prior", "decoder"):
        expected = jax.tree.map(lambda p, g: p - 0.1 * np.asarray(g), first[group], gradient[group])
        jax.tree.map(close, state.params[group], expected)
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], first["encoder"])  # it rests
    # The score is that of each chain's own log p(x, z), by finite differences.
    values, score = np.asarray(values, np.float64), -8 * np.asarray(slope, np.float64)
    differences = np.moveaxis(values[:2] - values[2:], 0, -1) / 2e-2
    np.testing.assert_allclose(score, differences, atol=0.02 * np.abs(differences).max())
    moved, noise = kept(state), np.asarray(jax.random.normal(step_keys(root, 1).move, (8, 2))).reshape(2, 4, 2)
    factor = np.linalg.inv(np.linalg.cholesky(precision))
    drift = 0.3 * scale * ((scale * score) @ factor.T @ factor)
    expected = z + drift + scale * np.sqrt(0.6) * (noise @ factor)
    for place, row in ((0, 3), (1, 7), (3, 9)):
        np.testing.assert_allclose(moved[:, row], expected[:, place], rtol=1e-3, atol=1e-3)
    assert min(np.abs(drift).max(), np.abs(scale * (noise @ factor)).max()) > 0.05
    np.testing.assert_array_equal(np.delete(moved, [3, 7, 9], axis=1), np.delete(start, [3, 7, 9], axis=1))


def test_chains_start_at_different_draws_of_the_encoder_and_keep_its_scales():
    model, x, _ = small()
    sampler = kaem.Particles(encoder=ENCODER, num_chains=500, step_size=0.3)
    state, params = (
        jax.jit(init, static_argnums=1)(jax.random.key(0), model)
        for init in (lambda key, model: sampler.init(key, model, {}, NUM_DATA), sampler.init_params)
    )
    rows = np.arange(BATCH, dtype=np.int32)
    draws, after = step(sampler, jax.random.key(1), 0, state, model, PARAMS | params, x[:BATCH], rows)
    jax.tree.map(np.testing.assert_array_equal, after, state)  # until they move
    mean, scale = encoded(model, params, x[:BATCH])
    np.testing.assert_allclose(draws.scale, scale, rtol=1e-5)
    spread = (np.asarray(draws.z) - mean) / scale
    assert_within(spread.mean(0), 0, 1 / np.sqrt(500), 5)
    assert_within(spread.std(0), 1, 1 / np.sqrt(1000), 5)
    assert len(np.unique(np.asarray(draws.z).reshape(-1, 2), axis=0)) == 500 * BATCH


def test_a_chain_that_diverged_leaves_the_metric_of_all_as_it_is():
    model, _, sampler = small()
    state, ones = sampler.init(jax.random.key(0), model, {}, NUM_DATA), np.ones((2, BATCH, 2), np.float32)

    @jax.jit
    def moved(state, score):
        draws = ParticleDraws(jnp.asarray(ones), {}, jnp.asarray(ones[0]))
        return sampler.move(jax.random.key(0), state, draws, score, np.arange(BATCH, dtype=np.int32))

    bad, wanted = ones.copy(), 0.5 * np.eye(2) + 0.5 * np.ones((2, 2))
    bad[0, 0, 0] = np.nan
    state = moved(state, bad)
    np.testing.assert_allclose(state.precision, wanted, rtol=1e-6)
    state = moved(state._replace(num_batches=np.int32(10_000)), 0 * ones)
    np.testing.assert_allclose(state.precision, 0.9995 * wanted, rtol=1e-6)
