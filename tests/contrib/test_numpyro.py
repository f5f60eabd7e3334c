"""The prior in numpyro: NUTS finds what quadrature and exact draws say; a pytree that is vmapped as others are."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from tests.builders import make_prior
from tests.truth import assert_within

numpyro = pytest.importorskip("numpyro", reason="numpyro is not installed: pip install numpyro")

from numpyro import diagnostics  # noqa: E402
from numpyro.distributions import Distribution, Normal  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

from kaem_jax.contrib.numpyro import PriorDistribution  # noqa: E402


def make(kind="mixture", seed=0, **options):
    prior = make_prior(kind, num_each=2, **{"grid_size": 4, "coefficient_scale": 0.5} | options)
    return prior, prior.init(jax.random.key(seed))


def untabulated(prior, **options):
    """The distribution without its numbers."""
    return jax.eval_shape(lambda key: PriorDistribution(prior, prior.init(key), **options), jax.random.key(0))


@pytest.mark.parametrize(("kind", "has"), [("mixture", True), ("clustered", False)])
def test_draws_of_learned_clusters_do_not_claim_a_gradient(kind, has):
    """A draw's cluster is one of a list: its gradient in the proportions is 0, that of the mean is not."""
    for proportions, expected in (("uniform", True), ("learned", has)):
        assert untabulated(make_prior(kind, proportions=proportions)).has_rsample == expected


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_a_noisy_observation():
    """z ~ prior, y = z + noise: latents of a mixture prior are independent, so each has a posterior on a line.

    The support is bounded, so that the transform to the real line and its Jacobian count, too.
    """
    prior, params = make(base_density="uniform", domain=(-2.0, 1.0), coefficient_scale=2.0)
    latents, y, noise = PriorDistribution(prior, params), np.array([0.8, -1.5], np.float32), 1.5

    def model():
        z = numpyro.sample("z", latents)
        numpyro.sample("y", Normal(z, noise).to_event(1), obs=jnp.asarray(y))

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=1000, progress_bar=False)
    with jax.numpy_dtype_promotion("standard"):  # numpyro divides floats by integers
        mcmc.run(jax.random.key(2))
    draws, z = np.asarray(mcmc.get_samples()["z"]), np.linspace(-2, 1, 4001, dtype=np.float32)
    assert -2 < draws.min() < draws.max() < 1
    of_prior = np.asarray(prior.density(prior.tabulate(params), np.stack([z, z], -1)), np.float64)
    weight = of_prior * np.exp(-0.5 * ((y - z[:, None]) / noise) ** 2)
    means = [[z**power @ w / w.sum(0) for power in (1, 2)] for w in (weight, of_prior)]
    for values, expected in zip((draws, draws**2), means[0], strict=True):
        size = np.array([diagnostics.effective_sample_size(values[None, :, q]) for q in range(2)])
        assert size.min() > 150
        assert_within(values.mean(0), expected, values.std(0) / np.sqrt(size), 4)
    assert np.all(np.abs(means[0][0] - means[1][0]) > 0.2)  # the observation counts


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({}, 9.0, np.nan),
        ({"base_density": "uniform", "domain": (-2.0, 1.0)}, -1.9, 1.1),
        ({"base_density": "lognormal", "domain": (0.1, 8.0)}, 30.0, -0.1),
    ],
)
def test_support_is_the_prior_s(options, inside, outside):
    prior = make_prior("product", num_each=2, **options)
    latents = untabulated(prior, validate_args=True)
    assert (latents.event_shape, latents.batch_shape) == ((2, 2), ())
    assert bool(latents.support(jnp.full((2, 2), inside)))
    assert not bool(latents.support(jnp.full((2, 2), 0.5).at[0, 1].set(outside)))
    assert latents._validate_args is True
    assert untabulated(prior, validate_args=False)._validate_args is False


def test_draws_and_densities_are_the_prior_s_by_its_table():
    asked = types.SimpleNamespace(
        is_normalized=True, event_shape=(2,), tabulate=lambda params: f"table of {params}",
        sample=lambda *given: given, log_prob=lambda *given: given,
    )  # fmt: skip
    latents = PriorDistribution(asked, "params", validate_args=False)
    assert latents.sample("key", (3, 4)) == ("key", "table of params", (3, 4))
    assert latents.log_prob("value") == ("params", "value", "table of params")


@pytest.mark.slow
def test_it_is_a_pytree_like_others():
    """Two priors as one, under jit and vmap, have the draws and densities of each; gradients reach the parameters."""
    prior, first = make()
    second = prior.init(jax.random.key(5))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(PriorDistribution(prior, p) for p in (first, second)))
    assert isinstance(both, Distribution)
    keys = jax.random.split(jax.random.key(3), 2)
    z = jax.jit(jax.vmap(lambda d, key: d.sample(key, (5,))))(both, keys)
    log_prob = jax.jit(jax.vmap(lambda d, z: d.log_prob(z)))(both, z)
    for i, params in enumerate((first, second)):
        np.testing.assert_allclose(z[i], prior.sample(keys[i], params, 5), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_prob[i], prior.log_prob(params, z[i]), rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda p: PriorDistribution(prior, p).log_prob(z[0]).sum())(first)
    expected = jax.grad(lambda p: prior.log_prob(p, z[0]).sum())(first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient, expected)
    assert np.abs(expected["bank"]["coefficients"]).max() > 0.01


def test_a_prior_without_a_normaliser_is_refused(refuses):
    prior = kaem.NeuralPrior(num_latents=2, hidden=(4,))
    with refuses(ValueError, "neural", "normalised"):
        PriorDistribution(prior, {})
