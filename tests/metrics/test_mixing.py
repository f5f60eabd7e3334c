"""Chains from different starts, in a posterior of two modes and in one of one."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.metrics import mixing
from kaem_jax.metrics.mixing import r_hat_over_starts
from tests.linear_gaussian import linear_gaussian


class Folded:
    """x = (z^2, 0.2 z): z and -z differ by 8 nats, with 50 between them."""

    data_shape = (2,)

    def apply(self, params, features):
        del params
        return jnp.concatenate([features**2, 0.2 * features], axis=-1)


@pytest.mark.parametrize(
    ("reference", "frame", "bounds"),
    [("uniform", None, (-3.0, 3.0)), ("gaussian", None, None), ("gaussian", "a", None)],
)
def test_chains_move_in_the_frame_or_within_the_bounds(monkeypatch, reference, frame, bounds):
    asked = []

    def chains(key, log_density, z, **options):
        asked.append(options)
        return types.SimpleNamespace(log_density=jnp.asarray(np.random.default_rng(0).normal(size=(50, 4, 3))))

    monkeypatch.setattr(mixing, "langevin_posterior", chains)
    prior = kaem.make_prior("product", outer=1, inner=2, reference=reference)
    generator = kaem.make_generator("mlp", in_features=1, data_shape=(2,), hidden=(2,))
    model = kaem.Model(prior, generator, kaem.make_likelihood("gaussian"))
    params = model.init(jax.random.key(0))
    asked_of = r_hat_over_starts.__wrapped__  # not what was compiled for another test
    asked_of(jax.random.key(1), model, params, jnp.zeros((3, 2)), frame=frame, num_steps=50)
    (options,) = asked
    assert (options["frame"], options["bounds"]) == (frame, bounds)
    assert (options["num_steps"], options["warmup_steps"]) == (25, 25)


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
