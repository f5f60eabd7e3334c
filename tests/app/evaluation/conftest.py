"""What files of this folder share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import kaem_jax as kaem
from tests.builders import make_prior
from tests.linear_gaussian import Fixed

CENTRES = np.array([[-3, -3], [-3, 3], [3, -3], [3, 3]], np.float32)  # of four clusters, six deviations apart


@pytest.fixture(autouse=True)
def _one_thread():
    """For scikit-learn, whose threads wait for each other where several tests run at once."""
    with threadpool_limits(1):
        yield


def numbers_of(key):
    """A key as what can be compared."""
    return tuple(jax.random.key_data(key).tolist())


def far_clusters(of_latents=lambda z: z, shape=(2,), sigma=1e-3):
    """Model and parameters: x is a function of z with little noise; cluster c is N(CENTRES[c], I), of class c mod 2."""
    prior = make_prior("clustered", 2, 4, num_classes=2, basis="rbf", shape="gaussian")
    model = kaem.Model(prior, Fixed(of_latents, shape), kaem.Gaussian(sigma))
    params = {"prior": jax.jit(prior.init)(jax.random.key(0)), "decoder": {}, "likelihood": {}}
    params["prior"]["location"] = jnp.asarray(CENTRES)
    return model, params


def nearest(x):
    """The cluster whose centre is nearest to each of x [..., 2]."""
    return np.argmin(np.square(np.asarray(x)[..., None, :] - CENTRES).sum(axis=-1), axis=-1)
