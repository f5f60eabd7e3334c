"""The optimiser against Adam written out by hand: rates by group, beta1 and beta2 in their places (mistake 15)."""

import jax
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


def updated(optimizer, gradients):
    """Parameters by name, from zero, after gradients [STEPS, ...] in a tree."""
    optimizer, params = optimizer.build(NUM_STEPS), jax.tree.map(lambda leaf: np.zeros_like(leaf[0]), gradients)

    def update(carry, tree):
        updates, state = optimizer.update(tree, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    with jax.numpy_dtype_promotion("standard"):
        run = jax.jit(lambda params: jax.lax.scan(update, (params, optimizer.init(params)), gradients)[0][0])
        return leaves_by_name(run(params))


@pytest.mark.parametrize("clip_norm", [1e6, 0.5])
def test_groups_schedules_and_clipping(rng, clip_norm):
    slow = Group(learning_rate=1e-3, warmup_steps=10, schedule="constant")
    fast = Group(learning_rate=4e-3, warmup_steps=5, final_fraction=0.1)
    c, w, s = gradients = rng.normal(size=(3, STEPS)).astype(np.float32)
    trees = {"prior": {"coefficients": c}, "decoder": {"w": w}, "likelihood": {"log_sigma": s}}
    params = updated(Optimizer(prior=slow, decoder=fast, clip_norm=clip_norm), trees)
    clipped = gradients.astype(float) * np.minimum(1, clip_norm / np.linalg.norm(gradients, axis=0))
    step = np.arange(STEPS)
    prior_rate = 1e-3 * np.minimum(step / 10, 1)
    progress = np.clip((step - 5) / (NUM_STEPS - 5), 0, 1)
    cosine = 4e-3 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress)))
    decoder_rate = np.where(step < 5, 4e-3 * step / 5, cosine)
    rates = {"prior/coefficients": prior_rate, "decoder/w": decoder_rate, "likelihood/log_sigma": decoder_rate}
    for (name, rate), gradient in zip(rates.items(), clipped, strict=True):
        np.testing.assert_allclose(params[name], adam(gradient, rate), rtol=1e-4)


def test_a_table_moves_further_and_by_its_gradient_where_that_is_small(rng):
    """Adam with a rate and an epsilon of its own. A group with a rate of zero stays, as the prior of a variational
    autoencoder does."""
    rate = 2e-3
    gradients = rng.normal(size=(STEPS, 2)).astype(np.float32) * np.float32([1.0, 1e-3])
    trees = {"decoder": {"bias": gradients, "ngrams": {"table": gradients}}, "prior": {"c": gradients}}
    params = updated(Optimizer(prior=constant(0.0), decoder=constant(rate), clip_norm=1e6), trees)
    np.testing.assert_array_equal(params["prior/c"], 0)
    of_table = 25 * adam(gradients, [rate] * STEPS, epsilon=8e-3)
    np.testing.assert_allclose(params["decoder/ngrams/table"], of_table, rtol=1e-4)
    np.testing.assert_allclose(params["decoder/bias"], adam(gradients, [rate] * STEPS), rtol=1e-4)
    assert abs(of_table[1]) < 25 * abs(float(params["decoder/bias"][1])) / 2


def test_an_encoder_is_clipped_on_its_own(rng):
    rate = 2e-3
    decoder, encoder = gradients = rng.normal(size=(2, STEPS)).astype(np.float32) * np.float32([[1.5], [1e3]])
    trees = {"encoder": {"w": encoder}, "decoder": {"w": decoder}, "prior": {"c": 0 * decoder}}
    params = updated(Optimizer(decoder=constant(rate), clip_norm=1.0), trees)
    for name, gradient in zip(("decoder/w", "encoder/w"), np.clip(gradients, -1, 1), strict=True):
        np.testing.assert_allclose(params[name], adam(gradient, [rate] * STEPS), rtol=1e-4)
