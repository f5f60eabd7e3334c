"""Samples with the likelihood's noise: from which cluster they come, how many there are, whose noise they have."""

import jax
import jax.numpy as jnp
import numpy as np

import kaem_jax as kaem
from kaem_jax.evaluation import generate
from kaem_jax.evaluation.generate import sample_with_noise
from tests.linear_gaussian import Linear

# Of four clusters, six standard deviations apart.
CENTRES = np.array([[-3, -3], [-3, 3], [3, -3], [3, 3]], np.float32)


def far_clusters():
    """Model and parameters: x is z with next to no noise; cluster c is N(CENTRES[c], I), and of class c mod 2."""
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, num_classes=2, coefficient_scale=0.0, domain=(-8.0, 8.0))
    model = kaem.Model(prior, Linear((2,)), kaem.Gaussian(sigma=1e-3))
    params = {"prior": prior.init(jax.random.key(0)), "likelihood": {}}
    params["prior"]["bank"]["base_weight"] = jnp.asarray(CENTRES.T)
    params["decoder"] = {"weight": jnp.eye(2), "bias": jnp.zeros(2)}
    return model, params


def nearest(x):
    """The cluster whose centre is nearest to each of x [..., 2]."""
    return np.argmin(np.square(np.asarray(x)[..., None, :] - CENTRES).sum(axis=-1), axis=-1)


def test_rows_come_from_the_cluster_or_the_class_that_is_asked_for_each_with_noise_of_its_own():
    """Also where a model says the same of every latent, so that rows of both batches differ by their noise only."""
    model, params = far_clusters()
    for part, shares in (({}, [0.25] * 4), ({"cluster": 2}, [0, 0, 1, 0]), ({"label": 1}, [0, 0.5, 0, 0.5])):
        rows = sample_with_noise(jax.random.key(1), model, params, 300, **part)
        np.testing.assert_allclose(np.bincount(nearest(rows), minlength=4) / 300, shares, atol=0.12)
    params["decoder"]["weight"] = jnp.zeros((2, 2))
    rows = sample_with_noise(jax.random.key(1), model, params, 300)
    assert rows.shape == (300, 2)
    assert len(np.unique(rows, axis=0)) == 300


def test_blocks_of_samples_are_different_ones_of_the_same_part(monkeypatch):
    monkeypatch.setattr(generate, "_BLOCK", 16)
    monkeypatch.setattr(generate, "_BATCH", 8)
    model, params = far_clusters()
    many, few = (
        np.concatenate(list(generate.sample_in_batches(jax.random.key(1), model, params, num, label=1)))
        for num in (40, 21)
    )
    assert many.shape == (40, 2)
    assert len(np.unique(many, axis=0)) == 40
    assert set(nearest(many)) == {1, 3}
    np.testing.assert_array_equal(few, many[:21])  # the first draws are the same for every number
