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
from tests.builders import make_model
from tests.linear_gaussian import linear_gaussian

NUM_DATA, BATCH = 12, 4
ENCODER = kaem.MLP((6,))


def posterior_of(params, sigma):
    """Mean as a function of x, and covariance, of the model of `linear_gaussian`."""
    weight, bias = (np.asarray(params["decoder"][name], np.float64) for name in ("weight", "bias"))
    covariance = np.linalg.inv(np.eye(len(weight)) + weight @ weight.T / sigma**2)
    return lambda x: (np.asarray(x, np.float64) - bias) @ weight.T @ covariance / sigma**2, covariance


@pytest.fixture(scope="module")
def linear():
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=3, size=6, sigma=0.7)
    x = model.simulate(jax.random.key(2), params, jax.random.normal(jax.random.key(1), (64, 3)))
    return model, params, x


@pytest.mark.parametrize("step_size", [0.2, 0.6])
def test_the_law_of_kept_chains_is_the_posterior_but_for_a_share_of_half_the_step_size(linear, step_size):
    """For a normal posterior the variance is 1 + h / 2 times the exact one, once the precision has settled."""
    model, params, x = linear
    mean, covariance = posterior_of(params, 0.7)
    sampler = kaem.Particles(num_chains=4, step_size=step_size)
    indices = jnp.arange(64, dtype=jnp.int32)
    score_of = jax.grad(lambda z: jnp.sum(model.log_joint(params, z, x)))

    def move(state, key):
        draws, state = sampler.step(key, 0, state, model, params, x, indices)
        return sampler.move(jax.random.fold_in(key, 1), state, draws, score_of(draws.z), indices), draws.z

    @jax.jit
    def run(key, state):
        keys = jax.random.split(key, 6000)
        state, _ = jax.lax.scan(lambda state, key: (move(state, key)[0], None), state, keys[:3000])
        return jax.lax.scan(move, state, keys[3000:])

    state = sampler.init(jax.random.key(0), model, params, 64)
    state, z = run(jax.random.key(3), state._replace(precision=jnp.asarray(np.linalg.inv(covariance), jnp.float32)))
    gap = np.asarray(z, np.float64) - mean(x)
    found = np.einsum("lcbi,lcbj->ij", gap, gap) / gap[..., 0].size
    wanted = (1 + step_size / 2) * covariance
    # 256 chains of 3,000 moves, of which about h in 2 count: entries have errors of about 1 / sqrt(38,000 h).
    error = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    assert np.abs((found - wanted) / error).max() < 4 * np.sqrt(2 / (256 * 3000 * step_size / 2))
    assert np.abs(gap.mean((0, 1, 2)) / np.sqrt(np.diag(wanted))).max() < 0.02
    precision = np.linalg.inv(covariance) * (1 + step_size / 2)
    np.testing.assert_allclose(state.precision, precision, rtol=0.05, atol=0.05 * precision.max())


def test_fresh_chains_draw_from_the_posterior_too(linear):
    """A frozen sampler has no chains: those of `draw` take 100 moves under the precision that training reached."""
    model, params, x = linear
    mean, covariance = posterior_of(params, 0.7)
    sampler = kaem.Particles(num_chains=200, step_size=0.2)
    state = sampler.init(jax.random.key(0), model, params, 64)
    state = state._replace(precision=jnp.asarray(np.linalg.inv(covariance), jnp.float32))
    posterior = FrozenSampler.freeze(sampler, state, 5)
    assert posterior.state.chains is None
    gap = np.asarray(posterior.draw(jax.random.key(1), model, params, x).z, np.float64) - mean(x)
    found = np.einsum("cbi,cbj->ij", gap, gap) / gap[..., 0].size
    np.testing.assert_allclose(found, covariance / (1 - 0.1), atol=4 * np.sqrt(2 / 12_800) * covariance.max())


def encoded(model, params, x):
    mean, log_scale = model.bind_encoder(ENCODER).apply(params["encoder"], x)
    return np.asarray(mean), np.exp(np.asarray(log_scale))


@functools.cache
def small():
    """A model of three latents with learned densities, data, the sampler, and a first state."""
    model = make_model("turned", num_latents=3, num_each=2, data_shape=(5,))
    x = jax.random.normal(jax.random.key(5), (NUM_DATA, 5))
    sampler = kaem.Particles(encoder=ENCODER, num_chains=2, step_size=0.3)
    return model, x, sampler


def state_of(optimizer):
    model, _, sampler = small()
    return init_train_state(jax.random.key(0), model, optimizer, sampler, NUM_DATA)


def kept(state):
    model, _, sampler = small()
    return np.asarray(sampler.kept(state.sampler, model))


def test_an_update_takes_both_gradients_where_the_chains_are_and_then_moves_them():
    """Parameters as by the loss at the positions before the move; each chain by its own score; others stay."""
    model, x, sampler = small()
    optimizer = optax.sgd(0.1)
    state = state_of(optimizer)
    step = make_train_step(model, optimizer, sampler)
    rows = jnp.asarray([[3, 7, 3, 9]], jnp.int32)  # a datum twice: one of its moves counts
    batch = Batch(x, rows, rows)
    state, _ = step(state, batch)
    start, first, root, old = kept(state), jax.device_get(state.params), jnp.copy(state.root_key), state.sampler
    assert np.isnan(np.delete(start, [3, 7, 9], axis=1)).all()
    assert np.isfinite(start[:, [3, 7, 9]]).all()
    precision = np.asarray(old.precision)
    scales = encoded(model, first, x)[1]
    state, metrics = step(state, batch)
    keys = step_keys(root, 1)
    z = jnp.asarray(start[:, rows[0]])

    def loss(params, z):
        return -jnp.mean(model.log_joint(params, z, x[rows[0]]))

    value, gradient = jax.jit(jax.value_and_grad(loss))(first, z)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    for group in ("prior", "decoder"):
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, first[group], gradient[group])
        jax.tree.map(close, state.params[group], expected)
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], first["encoder"])  # it rests
    # The score is that of each chain's own log p(x, z), by finite differences.
    ends = z + 1e-2 * jnp.concatenate([jnp.eye(3), -jnp.eye(3)])[:, None, None]
    values = np.asarray(jax.jit(functools.partial(model.log_joint, first))(ends, x[rows[0]]), np.float64)
    differences = np.moveaxis(values[:3] - values[3:], 0, -1) / 2e-2
    score = -8 * np.asarray(jax.jit(jax.grad(loss, argnums=1))(first, z), np.float64)
    np.testing.assert_allclose(score, differences, atol=0.02 * np.abs(differences).max())
    moved, noise = kept(state), np.asarray(jax.random.normal(keys.move, (8, 3))).reshape(2, 4, 3)
    factor = np.linalg.inv(np.linalg.cholesky(precision.astype(np.float64)))
    scale = scales[rows[0]]
    drift = 0.3 * scale * ((scale * score) @ factor.T @ factor)
    expected = np.asarray(z) + drift + scale * np.sqrt(0.6) * (noise @ factor)
    for place, row in ((0, 3), (1, 7), (3, 9)):
        np.testing.assert_allclose(moved[:, row], expected[:, place], rtol=1e-3, atol=1e-3)
    assert min(np.abs(drift).max(), np.abs(scale * (noise @ factor)).max()) > 0.05
    np.testing.assert_array_equal(np.delete(moved, [3, 7, 9], axis=1), np.delete(start, [3, 7, 9], axis=1))


def test_chains_start_at_different_draws_of_the_encoder_and_keep_its_scales():
    model, x, _ = small()
    sampler = kaem.Particles(encoder=ENCODER, num_chains=500, step_size=0.3)
    state = init_train_state(jax.random.key(0), model, optax.sgd(0.0), sampler, NUM_DATA)
    rows = jnp.arange(BATCH, dtype=jnp.int32)
    draws, same = sampler.step(jax.random.key(1), 0, state.sampler, model, state.params, x[:BATCH], rows)
    assert same is state.sampler  # until they move
    mean, scale = encoded(model, state.params, x[:BATCH])
    np.testing.assert_allclose(draws.scale, scale, rtol=1e-5)
    spread = (np.asarray(draws.z) - mean) / scale
    assert np.abs(spread.mean(0)).max() < 5 / np.sqrt(500)
    assert np.abs(spread.std(0) - 1).max() < 5 / np.sqrt(1000)
    assert len(np.unique(np.asarray(draws.z).reshape(-1, 3), axis=0)) == 500 * BATCH


def test_a_chain_that_diverged_leaves_the_metric_of_all_as_it_is():
    model, _, sampler = small()
    state = sampler.init(jax.random.key(0), model, {}, NUM_DATA)
    z = jnp.ones((2, BATCH, 3))
    draws = ParticleDraws(z, {}, jnp.ones((BATCH, 3)))
    rows = jnp.arange(BATCH, dtype=jnp.int32)
    bad = jnp.ones_like(z).at[0, 0, 0].set(jnp.nan)
    state = sampler.move(jax.random.key(0), state, draws, bad, rows)
    np.testing.assert_allclose(state.precision, 0.5 * np.eye(3) + 0.5 * np.ones((3, 3)), rtol=1e-6)
    state = state._replace(num_batches=jnp.asarray(10_000, jnp.int32))
    state = sampler.move(jax.random.key(0), state, draws, 0 * z, rows)
    np.testing.assert_allclose(state.precision, 0.9995 * (0.5 * np.eye(3) + 0.5 * np.ones((3, 3))), rtol=1e-6)
