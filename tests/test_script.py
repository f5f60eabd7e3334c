"""The script that a user wishes to write runs as it stands, and mistakes in it get one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from tests.builders import make_prior
from tests.truth import assert_within


@jax.numpy_dtype_promotion("standard")  # as users have it
@pytest.mark.slow
def test_the_script_runs(tmp_path):
    prior = kaem.ClusteredPrior(num_latents=6, num_clusters=10)
    model = kaem.Model(prior, kaem.MLP((128, 128), output="sigmoid"), kaem.Gaussian(0.2), data_shape=(8, 8))
    x = np.random.default_rng(0).uniform(size=(24, 8, 8)).astype(np.float32)
    key = jax.random.key(0)
    posterior = kaem.Variational(encoder=kaem.MLP((128, 128)))
    fitted = kaem.fit(key, model, x, posterior=posterior, num_steps=20, progress=False)
    params = fitted.params
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]

    images = model.sample_means(key, params, 16)
    assert images.shape == (16, 8, 8)
    assert np.all((images > 0) & (images < 1))

    few = x[:2]
    logp = kaem.log_prob(key, model, params, few)
    for numbers in (logp.value, logp.standard_error, logp.ess, logp.is_bound):
        assert numbers.shape == (2,)
        assert np.isfinite(numbers).all()
    assert np.all(logp.ess > 1)

    post = posterior.draw(key, model, params, x)
    assert post.z.shape == (1, 24, 6)
    assert post.one(key).shape == fitted.posterior.draw(key, model, params, x).one(key).shape == (24, 6)

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

    def log_prior(z):
        return -0.5 * jnp.sum(z["m"] ** 2)

    def log_likelihood(z):
        return -0.5 * 4 * jnp.sum((1 - z["m"]) ** 2)

    chains = kaem.mcmc.tempered(key, log_prior, log_likelihood, {"m": jnp.zeros(2)})
    assert_within(np.mean(chains.draws["m"], axis=(0, 1)), 0.8, np.sqrt(0.2 / chains.min_ess), 4.5)
    assert_within(chains.log_z, -np.log(5) - 0.8, chains.log_z_error, 4)


@jax.numpy_dtype_promotion("standard")
def test_mistakes_get_one_sentence(refuses):
    key, prior, decoder = jax.random.key(0), make_prior("clustered", basis="rbf"), kaem.MLP((4,), output="sigmoid")
    model, x = kaem.Model(prior, decoder, kaem.Gaussian(0.2), data_shape=(8, 8)), np.zeros((24, 8, 8), np.float32)
    params = model.init(jax.random.key(1))
    not_a_key, not_a_model = ["key=0", "jax.random.key(0)"], ["is not a kaem_jax.Model"]
    functions = (kaem.log_prob, kaem.infer_latents, kaem.impute)
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
        (lambda: kaem.fit(key, model, x, posterior="variational"), ["posterior='variational'", "kaem_jax.Langevin()"]),
    )
