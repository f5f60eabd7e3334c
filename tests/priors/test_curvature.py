"""The diagonal of the Hessian of log p(z), of which Laplace approximations are made."""

import jax
import numpy as np
import pytest

from tests.builders import wild_prior


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["turned", "clustered", "comonotone", "mixture"])
def test_curvature_is_the_diagonal_of_the_hessian(kind, x64, rng):
    prior, params = wild_prior(kind, num_latents=3, basis="rbf")
    bound = prior.bind(params)
    z = rng.normal(0, 0.7, (4, *prior.event_shape))
    found, hessian = jax.jit(lambda z: (bound.curvature(z), jax.vmap(jax.hessian(lambda z: bound.log_prob(z)))(z)))(z)
    truth = -np.diagonal(np.reshape(hessian, (4, z[0].size, z[0].size)), axis1=-2, axis2=-1).reshape(z.shape)
    assert np.abs(truth).max() > 0.9
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-9)
