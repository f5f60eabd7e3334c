"""Chains from different starts, in a posterior of two modes and in one of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.metrics.mixing import r_hat_over_starts
from tests.linear_gaussian import linear_gaussian


class Folded:
    """x = (z^2, 0.2 z): z and -z differ by 8 nats, with 50 between them."""

    data_shape = (2,)

    def apply(self, params, features):
        del params
        return jnp.concatenate([features**2, 0.2 * features], axis=-1)


@pytest.mark.slow
def test_chains_that_start_on_both_sides_of_a_barrier_disagree():
    plain, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=2, sigma=0.1)
    folded = kaem.Model(plain.prior, Folded(), plain.likelihood)
    x = jnp.broadcast_to(jnp.asarray([1.0, 0.2]), (8, 2))
    options = {"num_chains": 6, "num_steps": 400}
    separated = r_hat_over_starts(jax.random.key(0), folded, params | {"generator": {}}, x, **options)
    assert np.sum(np.asarray(separated) > 2) >= 7  # six starts are on one side in one of 32 data
    joined = r_hat_over_starts(jax.random.key(0), plain, params, x, **options)
    assert np.median(joined) < 1.1
