"""The neural baseline: short Langevin chains reach a density that is known, and nothing pretends to be exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from tests.truth import assert_within


def params_of(prior, values):
    """Parameters whose values are not those of a start."""
    return jax.tree.map(lambda leaf: np.float32(values(leaf.shape)), jax.eval_shape(prior.init, jax.random.key(0)))


@pytest.mark.slow
def test_draws_follow_the_density(rng):
    """One latent: the density by quadrature, the draws by long chains of small steps."""
    prior = kaem.NeuralPrior(num_latents=1, hidden=(8,), activation="tanh", num_steps=1000, step_size=0.01)
    params = prior.init(jax.random.key(0))
    params["dense_0"]["kernel"] = jnp.asarray(rng.normal(size=(1, 8)) * 2, jnp.float32)
    params["dense_1"]["kernel"] = jnp.asarray(rng.normal(size=(8, 1)) * 1.5, jnp.float32)
    grid = np.linspace(-6, 6, 4001)
    weight = np.exp(np.asarray(prior.bind(params).log_prob(jnp.asarray(grid[:, None], jnp.float32)), np.float64))
    weight /= weight.sum()
    z = np.asarray(jax.jit(lambda key: prior.bind(params).sample(key, (20_000,)))(jax.random.key(1)))[:, 0]
    mean, variance = weight @ grid, weight @ grid**2 - (weight @ grid) ** 2
    assert abs(mean) > 0.1  # the energy matters
    # Monte Carlo error, and the O(step size) bias of ULA.
    assert_within(z.mean(), mean, 5 * np.sqrt(variance / 20_000) + 0.02, 1)
    assert_within(z.var() / variance, 1, 0.05, 1)


def test_a_step_from_a_standard_normal():
    """Without an energy: z + eta (-z) + sqrt(2 eta) noise has the variance (1 - eta)^2 + 2 eta, twice here."""
    prior = kaem.NeuralPrior(num_latents=1, hidden=(2,), num_steps=2, step_size=0.3)
    params = params_of(prior, lambda shape: np.zeros(shape))
    z = prior.bind(params).sample(jax.random.key(1), (20_000,))
    variance = 0.7**2 * (0.7**2 + 0.6) + 0.6
    assert_within(np.var(z), variance, variance * (2 / 20_000) ** 0.5, 4.5)


def test_log_prob_is_energy_plus_standard_normal(rng):
    prior = kaem.NeuralPrior(num_latents=3, hidden=(5, 4))
    params = params_of(prior, lambda shape: rng.normal(0.3, 0.5, shape))  # biases begin at 0
    z = np.float32(rng.normal(size=(2, 7, 3)))
    x = np.asarray(z, np.float64)
    for i in range(3):
        x = x @ np.asarray(params[f"dense_{i}"]["kernel"], np.float64) + np.asarray(params[f"dense_{i}"]["bias"])
        x = x / (1 + np.exp(-x)) if i < 2 else x
    expected = x[..., 0] - 0.5 * np.sum(np.asarray(z, np.float64) ** 2, -1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior.bind(params).log_prob(z), expected, rtol=1e-5)


def test_what_it_cannot_know_it_refuses(refuses):
    prior = kaem.NeuralPrior(num_latents=2)
    for name in ("quantile", "cdf", "density"):
        with refuses(NotImplementedError, name, "up to a factor"):
            getattr(prior.bind({}), name)(jnp.full(2, 0.5))
    with refuses(NotImplementedError, "log_normalizer"):
        prior.bind({}).log_normalizer()
    with refuses(ValueError, "points='sobol'", "neural", "random"):
        prior.bind({}).sample(jax.random.key(0), (4,), "sobol")
