"""The optimiser against Adam written out by hand: rates by group, beta1 and beta2 in their places (mistake 15)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kaem_jax.model import leaves_by_name
from kaem_jax.training.optimizer import Group, Optimizer

STEPS, NUM_STEPS = 30, 60  # updates that are made, and of the run for which schedules are


def adam(gradients, rates, epsilon=1e-8):
    """Parameters after Adam with beta1 = 0.9, beta2 = 0.999 from zero."""
    first = second = position = 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        position -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + epsilon)
    return position


def constant(rate):
    return Group(learning_rate=rate, schedule="constant", warmup_steps=0)


def updated(optimizer, params, gradients):
    """The parameters after these gradients, trees of numbers."""

    @jax.jit
    def update(params, state, tree):
        updates, state = optimizer.update(tree, state, params)
        return optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for tree in gradients:
            params, state = update(params, state, jax.tree.map(jnp.float32, tree))
    return params


ZERO = jnp.zeros(())


@pytest.mark.parametrize("clip_norm", [1e6, 0.5])
def test_groups_schedules_and_clipping(rng, clip_norm):
    slow = Group(learning_rate=1e-3, warmup_steps=10, schedule="constant")
    fast = Group(learning_rate=4e-3, warmup_steps=5, final_fraction=0.1)
    optimizer = Optimizer(prior=slow, decoder=fast, clip_norm=clip_norm).build(NUM_STEPS)
    params = {"prior": {"coefficients": ZERO}, "decoder": {"w": ZERO}, "likelihood": {"log_sigma": ZERO}}
    gradients = rng.normal(size=(STEPS, 3)).astype(np.float32)
    trees = [
        {"prior": {"coefficients": c}, "decoder": {"w": w}, "likelihood": {"log_sigma": s}} for c, w, s in gradients
    ]
    params = updated(optimizer, params, trees)
    norm = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients.astype(float) * np.minimum(1, clip_norm / norm)
    step = np.arange(STEPS)
    prior_rate = 1e-3 * np.minimum(step / 10, 1)
    progress = np.clip((step - 5) / (NUM_STEPS - 5), 0, 1)
    cosine = 4e-3 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress)))
    decoder_rate = np.where(step < 5, 4e-3 * step / 5, cosine)
    np.testing.assert_allclose(params["prior"]["coefficients"], adam(clipped[:, 0], prior_rate), rtol=1e-4)
    np.testing.assert_allclose(params["decoder"]["w"], adam(clipped[:, 1], decoder_rate), rtol=1e-4)
    np.testing.assert_allclose(params["likelihood"]["log_sigma"], adam(clipped[:, 2], decoder_rate), rtol=1e-4)


def test_a_group_with_a_rate_of_zero_stays():
    """As the prior of a variational autoencoder does."""
    params = {"prior": {"w": jnp.ones(3)}, "decoder": {"w": jnp.ones(3)}}
    optimizer = Optimizer(prior=constant(0.0), decoder=constant(0.1)).build(NUM_STEPS)
    after = updated(optimizer, params, [jax.tree.map(jnp.ones_like, params)])
    assert {name for name, leaf in leaves_by_name(after).items() if bool(jnp.all(leaf == 1))} == {"prior/w"}


def test_a_table_moves_further_and_by_its_gradient_where_that_is_small(rng):
    """Adam with a rate and an epsilon of its own."""
    rate = 2e-3
    optimizer = Optimizer(decoder=constant(rate), clip_norm=1e6).build(NUM_STEPS)
    start = {"decoder": {"bias": jnp.zeros(2), "ngrams": {"table": jnp.zeros(2)}}, "prior": {"c": jnp.zeros(2)}}
    gradients = rng.normal(size=(STEPS, 2)).astype(np.float32) * np.float32([1.0, 1e-3])
    trees = [jax.tree.map(lambda _, g=gradient: g, start) for gradient in gradients]
    params = updated(optimizer, start, trees)
    of_table = [25 * adam(gradients[:, i], [rate] * STEPS, epsilon=8e-3) for i in range(2)]
    np.testing.assert_allclose(params["decoder"]["ngrams"]["table"], of_table, rtol=1e-4)
    of_bias = [adam(gradients[:, i], [rate] * STEPS) for i in range(2)]
    np.testing.assert_allclose(params["decoder"]["bias"], of_bias, rtol=1e-4)
    assert abs(of_table[1]) < 25 * abs(float(params["decoder"]["bias"][1])) / 2


def test_an_encoder_is_clipped_on_its_own(rng):
    """Its huge gradients do not shorten the model's, nor the model's its own."""
    rate = 2e-3
    start = {"encoder": {"w": ZERO}, "decoder": {"w": ZERO}, "prior": {"c": ZERO}}
    gradients = rng.normal(size=(STEPS, 2)).astype(np.float32) * np.float32([1.5, 1e3])
    trees = [start | {"encoder": {"w": encoder}, "decoder": {"w": model}} for model, encoder in gradients]
    params = updated(Optimizer(decoder=constant(rate), clip_norm=1.0).build(NUM_STEPS), start, trees)
    clipped = np.clip(gradients, -1, 1)
    for i, group in enumerate(("decoder", "encoder")):
        np.testing.assert_allclose(params[group]["w"], adam(clipped[:, i], [rate] * STEPS), rtol=1e-4)
