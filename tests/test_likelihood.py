"""Likelihoods against scipy, and the matrix-product form against the paired one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kaem_jax.likelihood import Gaussian, make_likelihood

BATCH, SAMPLES, SIZE = 5, 7, 64


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(SAMPLES, SIZE)).astype(np.float32), rng.uniform(size=(BATCH, SIZE)).astype(np.float32)


@pytest.mark.parametrize("learned", [False, True])
def test_gaussian_includes_its_constant(arrays, learned):
    output, x = arrays
    likelihood = Gaussian(sigma=0.2, learn_sigma=learned)
    params = likelihood.init(jax.random.key(0))
    sigma = 0.2
    if learned:
        sigma = 0.35
        params = {"log_sigma": jnp.log(jnp.float32(sigma))}
    truth = stats.norm(output[None].astype(float), sigma).logpdf(x[:, None].astype(float)).sum(-1)
    np.testing.assert_allclose(likelihood.pairwise_log_prob(params, output, x), truth, rtol=1e-5)
    np.testing.assert_allclose(likelihood.log_prob(params, output[:BATCH], x), np.diag(truth), rtol=1e-5)


def test_bernoulli(arrays):
    logits, x = arrays
    x = np.round(x)
    likelihood = make_likelihood("bernoulli")
    truth = stats.bernoulli(1 / (1 + np.exp(-logits[None].astype(float)))).logpmf(x[:, None]).sum(-1)
    np.testing.assert_allclose(likelihood.pairwise_log_prob({}, logits, x), truth, rtol=1e-5)
    np.testing.assert_allclose(likelihood.log_prob({}, logits[:BATCH], x), np.diag(truth), rtol=1e-5)
    np.testing.assert_allclose(likelihood.mean({}, logits), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_pairwise_distances_keep_their_digits_far_from_the_origin(rng):
    """|x - y|^2 by a matrix product cancels unless the data are centred: images live around 0.5, not 0."""
    x = (100 + 0.1 * rng.normal(size=(BATCH, 3072))).astype(np.float32)
    output = (100 + 0.1 * rng.normal(size=(SAMPLES, 3072))).astype(np.float32)
    truth = stats.norm(output[None].astype(float), 0.1).logpdf(x[:, None].astype(float)).sum(-1)
    np.testing.assert_allclose(Gaussian(0.1).pairwise_log_prob({}, output, x), truth, atol=0.05)


def test_refusals(refuses):
    with refuses(ValueError, "kind='poisson'", "gaussian"):
        make_likelihood("poisson")
    with refuses(ValueError, "sigma=0", "positive"):
        make_likelihood("gaussian", sigma=0.0)
