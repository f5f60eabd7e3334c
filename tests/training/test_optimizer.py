"""The optimiser against Adam written out by hand: rates by group, beta1 and beta2 in their places (mistake 15)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kaem_jax.runs.build import build_model, build_optimizer

from kaem_jax.model import leaves_by_name
from kaem_jax.training.optimizer import make_optimizer, reset_momentum
from tests.training.test_loop import tiny_config

STEPS = 30


def adam(gradients, rates, epsilon=1e-8):
    """Parameters after Adam with beta1 = 0.9, beta2 = 0.999 from zero."""
    first = second = position = 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        position -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + epsilon)
    return position


@pytest.mark.parametrize("clip_norm", [1e6, 0.5])
def test_groups_schedules_and_clipping(rng, clip_norm):
    config = tiny_config(
        optimizer__clip_norm=clip_norm,
        optimizer__prior__learning_rate=1e-3,
        optimizer__prior__warmup_steps=10,
        optimizer__prior__schedule="constant",
        optimizer__decoder__learning_rate=4e-3,
        optimizer__decoder__final_fraction=0.1,
    )
    zero = jnp.zeros(())
    params = {
        "prior": {"coefficients": zero, "grid": zero},
        "decoder": {"w": zero},
        "likelihood": {"log_sigma": zero},
    }
    gradients = rng.normal(size=(STEPS, 4)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = build_optimizer(config)
        state = optimizer.init(params)
        for c, g, w, s in gradients:
            tree = {"prior": {"coefficients": c, "grid": g}, "decoder": {"w": w}, "likelihood": {"log_sigma": s}}
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, tree), state, params)
            params = jax.tree.map(lambda p, u: p + u, params, updates)

    norm = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients.astype(float) * np.minimum(1, clip_norm / norm)
    step = np.arange(STEPS)
    prior_rate = 1e-3 * np.minimum(step / 10, 1)
    warm = config.optimizer.decoder.warmup_steps
    progress = np.clip((step - warm) / (config.train.num_steps - warm), 0, 1)
    cosine = 4e-3 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress)))
    decoder_rate = np.where(step < warm, 4e-3 * step / warm, cosine)
    np.testing.assert_allclose(params["prior"]["coefficients"], adam(clipped[:, 0], prior_rate), rtol=1e-4)
    np.testing.assert_allclose(params["decoder"]["w"], adam(clipped[:, 2], decoder_rate), rtol=1e-4)
    np.testing.assert_allclose(params["likelihood"]["log_sigma"], adam(clipped[:, 3], decoder_rate), rtol=1e-4)
    assert params["prior"]["grid"] == 0


def test_only_grids_of_function_banks_are_frozen():
    """A user's network may call its parameters so, too."""
    params = {
        "prior": {"bank": {"grid": jnp.ones(3), "coefficients": jnp.ones((2, 2))}},
        "decoder": {"bank_0": {"grid": jnp.ones(3), "coefficients": jnp.ones((2, 2))}, "grid": jnp.ones((4, 4))},
    }
    with jax.numpy_dtype_promotion("standard"):
        optimizer = make_optimizer({"prior": 0.1, "decoder": 0.1})
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    moved = {name: bool(jnp.any(leaf)) for name, leaf in leaves_by_name(updates).items()}
    assert [name for name, is_moved in moved.items() if not is_moved] == ["decoder/bank_0/grid", "prior/bank/grid"]


def test_decay_shrinks_matrices_of_networks_and_nothing_else():
    """Without gradients Adam does not move, so each update multiplies them by 1 - rate x decay."""
    rate, decay = 1e-2, 0.3
    config = tiny_config(
        optimizer__weight_decay=decay,
        optimizer__decoder__learning_rate=rate,
        optimizer__decoder__schedule="constant",
        optimizer__decoder__warmup_steps=0,
    )
    params = {
        "prior": {"coefficients": jnp.ones((2, 3))},
        "decoder": {
            "kernel": jnp.ones((2, 3)),
            "bias": jnp.ones(3),
            "bank_0": {"grid": jnp.ones((2, 3)), "coefficients": jnp.ones(3)},
            # of a KAN layer: the widths of its functions, and the factor of its coefficients
            "scale": jnp.ones((2, 1)),
            "basis_weight": jnp.ones((2, 3)),
        },
        "encoder": {"kernel": jnp.ones((2, 2, 1, 3))},
        "likelihood": {"log_sigma": jnp.ones(())},
    }
    start = params
    with jax.numpy_dtype_promotion("standard"):
        optimizer = build_optimizer(config)
        state = optimizer.init(params)
        for _ in range(STEPS):
            updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
            params = jax.tree.map(jnp.add, params, updates)
    expected = (1 - rate * decay) ** STEPS
    for group in ("decoder", "encoder"):
        np.testing.assert_allclose(params[group].pop("kernel"), expected, rtol=1e-5)
        start[group].pop("kernel")
    jax.tree.map(np.testing.assert_array_equal, params, start)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_table_moves_further_and_by_its_gradient_where_that_is_small(rng, decay):
    """Adam with a rate and an epsilon of its own, which the state on disk knows nothing of."""
    config = tiny_config(
        optimizer__clip_norm=1e6,
        optimizer__weight_decay=decay,
        optimizer__decoder__schedule="constant",
        optimizer__decoder__warmup_steps=0,
    )
    rate = config.optimizer.decoder.learning_rate
    params = {"decoder": {"bias": jnp.zeros(2), "ngrams": {"table": jnp.zeros(2)}}, "prior": {"c": jnp.zeros(2)}}
    gradients = rng.normal(size=(STEPS, 2)).astype(np.float32) * [1.0, 1e-3]
    with jax.numpy_dtype_promotion("standard"):
        optimizer = build_optimizer(config)
        state = optimizer.init(params)
        for gradient in jnp.asarray(gradients):
            updates, state = optimizer.update(jax.tree.map(lambda _, g=gradient: g, params), state, params)
            params = jax.tree.map(jnp.add, params, updates)
    of_table = [25 * adam(gradients[:, i], [rate] * STEPS, epsilon=8e-3) for i in range(2)]
    np.testing.assert_allclose(params["decoder"]["ngrams"]["table"], of_table, rtol=1e-4)
    np.testing.assert_allclose(
        params["decoder"]["bias"], [adam(gradients[:, i], [rate] * STEPS) for i in range(2)], rtol=1e-4
    )
    assert abs(of_table[1]) < 25 * abs(float(params["decoder"]["bias"][1])) / 2


def test_an_encoder_is_clipped_on_its_own(rng):
    """Its huge gradients do not shorten the model's, nor the model's its own."""
    config = tiny_config(
        optimizer__clip_norm=1.0, optimizer__decoder__schedule="constant", optimizer__decoder__warmup_steps=0
    )
    rate, zero = config.optimizer.decoder.learning_rate, jnp.zeros(())
    params = {"encoder": {"w": zero}, "decoder": {"w": zero}, "prior": {"c": zero}}
    gradients = rng.normal(size=(STEPS, 2)).astype(np.float32) * [1.5, 1e3]
    with jax.numpy_dtype_promotion("standard"):
        optimizer = build_optimizer(config)
        state = optimizer.init(params)
        for model, encoder in gradients:
            tree = {
                "encoder": {"w": jnp.float32(encoder)},
                "decoder": {"w": jnp.float32(model)},
                "prior": {"c": zero},
            }
            updates, state = optimizer.update(tree, state, params)
            params = jax.tree.map(lambda p, u: p + u, params, updates)
    clipped = np.clip(gradients, -1, 1)
    np.testing.assert_allclose(params["decoder"]["w"], adam(clipped[:, 0], [rate] * STEPS), rtol=1e-4)
    np.testing.assert_allclose(params["encoder"]["w"], adam(clipped[:, 1], [rate] * STEPS), rtol=1e-4)


def test_an_annealed_scale_follows_its_schedule_whatever_its_gradient():
    """Geometric from 1 to 0.1 in 10 updates, then constant; a huge gradient of it does not clip the others'.

    They are clipped by their own: of 5 and -0.5, the first becomes 1.
    """
    config = tiny_config(
        likelihood__learn_sigma=False, likelihood__sigma=0.1, likelihood__anneal_from=1.0, likelihood__anneal_steps=10,
        optimizer__clip_norm=1.0, optimizer__decoder__schedule="constant", optimizer__decoder__warmup_steps=0,
    )  # fmt: skip
    model, optimizer = build_model(config, (8, 8)), build_optimizer(config)
    assert float(model.init(jax.random.key(0))["likelihood"]["log_sigma"]) == 0
    zero = jnp.zeros(())
    params = {"prior": {"c": zero}, "decoder": {"w": zero}, "likelihood": {"log_sigma": zero}}
    gradients = {
        "prior": {"c": zero},
        "decoder": {"w": jnp.asarray(5.0)},
        "likelihood": {"log_sigma": jnp.asarray(1e6)},
    }
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        found = []
        for step in range(12):
            scale = 1.0 if step % 2 else -0.1
            own = gradients | {"decoder": {"w": scale * gradients["decoder"]["w"]}}
            updates, state = optimizer.update(own, state, params)
            params = jax.tree.map(lambda p, u: p + u, params, updates)
            found.append(float(params["likelihood"]["log_sigma"]))
    expected = np.log(0.1) * np.minimum(np.arange(1, 13) / 10, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    rate = config.optimizer.decoder.learning_rate
    clipped = adam([1.0 if step % 2 else -0.5 for step in range(12)], [rate] * 12)
    np.testing.assert_allclose(params["decoder"]["w"], clipped, rtol=1e-4)


def test_a_group_with_a_rate_of_zero_stays_where_it_is():
    """The prior of a variational autoencoder; the decoder moves all the same."""
    config = tiny_config(optimizer__prior__learning_rate=0.0)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = build_optimizer(config)
        params = {"prior": {"c": jnp.ones(())}, "decoder": {"w": jnp.ones(())}, "likelihood": {}}
        state = optimizer.init(params)
        for _ in range(20):
            updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
            params = jax.tree.map(lambda p, u: p + u, params, updates)
    assert params["prior"]["c"] == 1
    assert params["decoder"]["w"] < 1


@jax.numpy_dtype_promotion("standard")  # as optax needs it
def test_after_a_refit_adam_has_no_momentum_and_takes_no_long_steps(rng):
    """Steps of a changed parameter begin at a tenth of the rate, and never pass it; others go on as they did."""
    optimizer = optax.adam(0.01)
    old = {"moved": jnp.ones(3), "kept": jnp.ones(3)}
    gradient = {name: jnp.asarray([1.0, -2.0, 3.0]) for name in old}
    state = optimizer.init(old)
    for _ in range(2000):
        _, state = optimizer.update(gradient, state, old)
    state = reset_momentum(state, old, old | {"moved": jnp.zeros(3)})
    steps = []
    for _ in range(30):
        updates, state = optimizer.update(gradient, state, old)
        steps.append(np.abs(updates["moved"]))
        np.testing.assert_allclose(np.abs(updates["kept"]), 0.01, rtol=0.02)
    np.testing.assert_allclose(steps[0], 0.001, rtol=0.1)
    assert np.max(steps) < 0.0105
