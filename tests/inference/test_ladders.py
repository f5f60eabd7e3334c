"""Ladders from the prior and from an encoder reach both modes of a posterior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.networks import Encoder
from tests.linear_gaussian import Fixed, linear_gaussian
from tests.truth import assert_within

NUM_DATA = 64


@dataclasses.dataclass(frozen=True)
class Wide(Encoder):
    """An encoder that knows the size of the latents, not their sign."""

    def init(self, key):
        return {}

    def apply(self, params, x):
        return jnp.zeros_like(x), 0.5 * jnp.log(x)


@pytest.mark.sweep
@pytest.mark.parametrize("ends", [{}, {"exponent": 1.0, "encoder": Wide()}], ids=["prior", "encoder"])
@pytest.mark.slow
def test_both_modes_have_their_mass_and_replicas_make_round_trips(ends):
    """A prior N(0, 1) and x = z^2 with little noise, at 4: exact masses of one half each, ten deviations apart."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=0.8)
    model = kaem.Model(model.prior, Fixed(jnp.square), model.likelihood)
    given = model, params | {"decoder": {}, "encoder": {}}, jnp.full((NUM_DATA, 1), 4.0), jnp.arange(NUM_DATA)
    options = {"num_steps": 8, "steps_per_round": 2, "num_temperatures": 4, "persistent": True}
    sampler = kaem.Tempered(step_size=0.05, **options, **ends)
    state = sampler.init(jax.random.key(1), *given[:2], NUM_DATA)
    draw = jax.jit(lambda key, step, state: sampler.step(key, step, state, *given))
    positive, trips = [], []
    for step in range(60):
        draws, state = draw(jax.random.key(10 + step), step, state)
        positive.append(np.asarray(draws.z[0, :, 0]) > 0)
        trips.append(float(draws.metrics["round_trips"]))
    kept = np.stack(positive[20:])
    # Each datum has its own chain: their means over draws are independent, and their spread gives the error.
    shares = kept.mean(axis=0)
    error = shares.std() / np.sqrt(NUM_DATA)
    assert_within(shares.mean(), 0.5, max(0.05, 4.5 * error), 1)
    assert error < 0.05
    assert sum(trips[20:]) > 0
    assert np.mean(kept[1:] != kept[:-1]) > 0.02  # chains change modes
    assert 0 < float(draws.metrics["barrier"]) < 3
