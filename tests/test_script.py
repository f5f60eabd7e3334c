"""Chains on a user's own densities, and mistakes in a script, which get one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from tests.builders import make_prior
from tests.truth import assert_within


@jax.numpy_dtype_promotion("standard")  # as users have it
@pytest.mark.slow
def test_chains_on_any_two_log_densities_and_any_position():
    """A conjugate pair: mean m ~ N(0, 1) and the data's mean 1 with variance 1 / 4, beside a scalar of the prior."""

    def log_prior(z):
        return -0.5 * jnp.sum(z["m"] ** 2) - 0.5 * z["s"] ** 2

    def log_likelihood(z):
        return -0.5 * 4 * jnp.sum((1 - z["m"]) ** 2)

    z0 = {"m": jnp.zeros(2), "s": jnp.zeros(())}
    chains = kaem.mcmc.tempered(
        jax.random.key(0), log_prior, log_likelihood, z0, num_chains=400, num_rounds=40, num_temperatures=3
    )
    assert chains.z["m"].shape == (3, 400, 2)
    assert chains.top["s"].shape == (400,)
    assert_within(np.mean(chains.top["m"], axis=0), 0.8, np.sqrt(0.2 / 400), 4.5)
    assert_within(np.var(chains.top["m"], axis=0), 0.2, 0.2 * np.sqrt(2 / 400), 4.5)
    assert_within(np.mean(chains.top["s"]), 0, 1 / np.sqrt(400), 4.5)


@jax.numpy_dtype_promotion("standard")
def test_mistakes_get_one_sentence(refuses):
    key, prior, decoder = jax.random.key(0), make_prior("clustered", basis="rbf"), kaem.MLP((4,), output="sigmoid")
    model, x = kaem.Model(prior, decoder, kaem.Gaussian(0.2), data_shape=(8, 8)), np.zeros((24, 8, 8), np.float32)
    params = model.init(jax.random.key(1))
    not_a_key, not_a_model = ["key=0", "jax.random.key(0)"], ["is not a kaem_jax.Model"]
    functions = (kaem.log_prob, kaem.encode, kaem.impute)
    refuses.each(
        (lambda: kaem.fit(0, model, x), not_a_key),
        (lambda: model.init(0), not_a_key),
        *((lambda f=f: f(0, model, params, x), not_a_key) for f in functions),
        (lambda: kaem.fit(key, x, model), not_a_model),
        *((lambda f=f: f(key, params, model, x), not_a_model) for f in functions),
        (lambda: kaem.Model(prior, decoder, "gaussian", (8, 8)), ["likelihood='gaussian'", "kaem_jax.Gaussian(0.3)"]),
        (lambda: kaem.Model(prior, kaem.Gaussian(), decoder, (8, 8)), ["decoder=", "kaem_jax.MLP()"]),
        (lambda: kaem.Model(kaem.Gaussian(), decoder, prior, (8, 8)), ["prior=", "kaem_jax.ClusteredPrior("]),
        (lambda: kaem.Model(model.network, prior, kaem.Gaussian(), (8, 8)), ["prior=NnxDecoder(", "is not a prior"]),
        (lambda: kaem.Model(prior, decoder, prior, (8, 8)), ["likelihood=ClusteredPrior(", "is not a likelihood"]),
        (lambda: kaem.fit(key, model, x, optimizer=1e-3), ["optimizer=0.001", "kaem_jax.Optimizer()"]),
        (lambda: kaem.fit(key, model, x, loss="bound"), ["loss='bound'", "kaem_jax.Loss()"]),
        (lambda: kaem.fit(key, model, x, posterior="variational"), ["posterior='variational'", "kaem_jax.Langevin()"]),
    )
