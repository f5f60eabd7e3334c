"""Chains from different starts, in a posterior of two modes and in one of one."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators import mixing
from kaem_jax.evaluation.evaluators.mixing import r_hat_over_starts
from tests.builders import make_model
from tests.linear_gaussian import Fixed, linear_gaussian


@pytest.mark.parametrize(
    ("reference", "frame", "bounds"),
    [("uniform", None, (-3.0, 3.0)), ("gaussian", None, None), ("uniform", "a", None)],
)
def test_chains_move_in_the_frame_or_within_the_bounds(monkeypatch, reference, frame, bounds):
    asked = []

    def chains(key, log_density, z, **options):
        asked.append(options | {"starts": z.shape})
        return types.SimpleNamespace(log_density=jnp.zeros((50, 4, 3)))

    monkeypatch.setattr(mixing, "langevin_posterior", chains)
    model = make_model("product", data_shape=(2,), num_latents=1, num_each=2, base_density=reference)
    asked_of = functools.partial(r_hat_over_starts.__wrapped__, model=model, frame=frame, num_steps=50)
    jax.eval_shape(lambda key: asked_of(key, params=model.init(key), x=jnp.zeros((3, 2))), jax.random.key(0))
    (options,) = asked
    assert (options["frame"], options["bounds"]) == (frame, bounds)
    assert (options["num_steps"], options["warmup_steps"], options["starts"][:2]) == (25, 25, (4, 3))
    assert options["step_size"].shape == (1, 3)  # a sharp posterior does not wait for the others


@pytest.mark.slow
def test_chains_that_start_on_both_sides_of_a_barrier_disagree():
    """x = (z^2, 0.2 z): z and -z differ by 8 nats, with 50 between them."""
    plain, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=2, sigma=0.1)
    decoder = Fixed(lambda z: jnp.concatenate([z**2, 0.2 * z], axis=-1), (2,))
    folded = kaem.Model(plain.prior, decoder, plain.likelihood)
    x = jnp.broadcast_to(jnp.asarray([1.0, 0.2]), (8, 2))
    separated, joined = (
        np.asarray(r_hat_over_starts(jax.random.key(0), model, params, x, num_chains=6, num_steps=400))
        for model in (folded, plain)
    )
    assert np.sum(separated > 2) >= 7  # six starts are on one side in one of 32 data
    assert np.median(joined) < 1.1
