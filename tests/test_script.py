"""The script that a user wishes to write runs as it stands, and mistakes in it get one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from tests.truth import assert_within

NUM_DATA = 24


@pytest.fixture(autouse=True)
def _promotion():
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        yield


@pytest.fixture(scope="module")
def model():
    prior = kaem.ClusteredPrior(num_latents=6, num_clusters=10)
    return kaem.Model(prior, kaem.MLP((128, 128), output="sigmoid"), kaem.Gaussian(0.2), data_shape=(8, 8))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).uniform(size=(NUM_DATA, 8, 8)).astype(np.float32)


@pytest.mark.slow
def test_the_script_runs(tmp_path, model, x):
    key, prior = jax.random.key(0), model.prior
    posterior = kaem.Variational(encoder=kaem.MLP((128, 128)))
    fitted = kaem.fit(key, model, x, posterior=posterior, num_steps=20, progress=False)
    params = fitted.params
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]

    images = model.sample(key, params, 16)
    assert images.shape == (16, 8, 8)
    assert np.all((images > 0) & (images < 1))

    few = x[:2]
    logp = kaem.log_prob(key, model, params, few)
    for numbers in (logp.value, logp.standard_error, logp.ess, logp.is_bound):
        assert numbers.shape == (2,)
        assert np.isfinite(numbers).all()
    assert np.all(logp.ess > 1)

    post = posterior.draw(key, model, params, x)
    assert post.z.shape == (1, NUM_DATA, 6)
    assert post.one(key).shape == fitted.posterior.draw(key, model, params, x).one(key).shape == (NUM_DATA, 6)

    p = prior.bind(params["prior"])
    z = p.sample(key, (1000,))
    u = p.cdf(z)
    assert p.log_prob(z).shape == (1000,)
    np.testing.assert_allclose(p.quantile(u), z, atol=1e-3)
    assert np.isfinite(p.log_prob(z)).all()

    half = np.where(np.arange(8) < 4, few, np.nan).astype(np.float32)
    whole = kaem.impute(key, model, params, half)
    assert np.isfinite(whole.mean).all()
    np.testing.assert_array_equal(whole.mean[..., :4], few[..., :4])

    kaem.save(tmp_path / "m.npz", model, params)
    again, loaded = kaem.load(tmp_path / "m.npz")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, {name: loaded[name] for name in params}, params)


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


def test_mistakes_get_one_sentence(refuses, model, x):
    key, params = jax.random.key(0), model.init(jax.random.key(1))
    prior, decoder = model.prior, model.decoder
    not_a_key, not_a_model = ["key=0", "jax.random.key(0)"], ["is not a kaem_jax.Model"]
    functions = (kaem.log_prob, kaem.encode, kaem.impute)
    for call, parts in (
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
    ):
        with refuses(ValueError, *parts):
            call()
