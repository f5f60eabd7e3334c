"""Chains from different starts, in a posterior of two modes and in one of one."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.evaluation.evaluators import mixing
from kaem_jax.evaluation.evaluators.mixing import r_hat_over_starts
from kaem_jax.likelihoods import Termwise
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
    prior = kaem.ProductPrior(num_latents=1, num_terms=2, base_density=reference)
    decoder = kaem.MLP(hidden=(2,)).decoder(1, (2,), (2,))
    model = kaem.Model(prior, decoder, kaem.Gaussian())
    params = model.init(jax.random.key(0))
    asked_of = r_hat_over_starts.__wrapped__  # not what was compiled for another test
    asked_of(jax.random.key(1), model, params, jnp.zeros((3, 2)), frame=frame, num_steps=50)
    (options,) = asked
    assert (options["frame"], options["bounds"]) == (frame, bounds)
    assert (options["num_steps"], options["warmup_steps"]) == (25, 25)
    assert options["step_size"].shape == (1, 3)  # a sharp posterior does not wait for the others


@pytest.mark.slow
def test_posteriors_of_other_widths_agree_too():
    """x = (s, s z / 0.005) of a switch s of 0 or 1 beside the latent: one posterior is the prior, one far narrower."""
    plain, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=1, sigma=1.0)

    class Switched(Termwise):
        def init(self, key):
            return {}

        def terms(self, params, output, x):
            width = jnp.where(x == 0, 1.0, 0.02)
            return -0.5 * jnp.square(output / width) - jnp.log(width)

    model = kaem.Model(plain.prior, plain.decoder, Switched())
    params["decoder"] = {"weight": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    x = jnp.asarray([[0.0]] * 9 + [[1.0]])
    found = r_hat_over_starts(jax.random.key(0), model, params, x, num_chains=6, num_steps=600)
    assert np.all(np.asarray(found) < 1.2)


@pytest.mark.slow
def test_chains_that_start_on_both_sides_of_a_barrier_disagree():
    plain, params, _ = linear_gaussian(np.random.default_rng(0), num_latents=1, size=2, sigma=0.1)
    folded = kaem.Model(plain.prior, Folded(), plain.likelihood)
    x = jnp.broadcast_to(jnp.asarray([1.0, 0.2]), (8, 2))
    options = {"num_chains": 6, "num_steps": 400}
    separated = r_hat_over_starts(jax.random.key(0), folded, params | {"decoder": {}}, x, **options)
    assert np.sum(np.asarray(separated) > 2) >= 7  # six starts are on one side in one of 32 data
    joined = r_hat_over_starts(jax.random.key(0), plain, params, x, **options)
    assert np.median(joined) < 1.1
