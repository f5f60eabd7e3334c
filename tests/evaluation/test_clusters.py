"""What clusters stand for."""

import jax
import jax.numpy as jnp
import numpy as np

import kaem_jax as kaem
from kaem_jax.evaluation.metrics.clusters import heaviest_clusters


def test_the_heaviest_clusters_come_first():
    prior = kaem.ClusteredPrior(num_latents=2, num_clusters=4, proportions="learned")
    logits = np.array([0.0, 1.0, -0.5, 0.3])
    params = prior.init(jax.random.key(0)) | {"logits": jnp.asarray(logits, jnp.float32)}
    clusters, shares = zip(*heaviest_clusters(prior, params, 2), strict=True)
    assert clusters == (1, 3)
    np.testing.assert_allclose(shares, (np.exp(logits) / np.exp(logits).sum())[[1, 3]], rtol=1e-6)
