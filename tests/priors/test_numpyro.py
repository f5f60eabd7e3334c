"""The prior in numpyro: what it asks of the prior, and a pytree that is vmapped as others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.builders import make_prior

numpyro = pytest.importorskip("numpyro", reason="numpyro is not installed: pip install numpyro")

from numpyro.distributions import Distribution, biject_to  # noqa: E402

from kaem_jax.priors.numpyro import PriorDistribution  # noqa: E402


def untabulated(prior, **options):
    """The distribution without its numbers."""
    return jax.eval_shape(lambda key: PriorDistribution(prior, prior.init(key), **options), jax.random.key(0))


def test_draws_of_learned_clusters_do_not_claim_a_gradient():
    """A draw's cluster is one of a list: its gradient in the proportions is 0, that of the mean is not."""
    found = {
        (kind, proportions): untabulated(make_prior(kind, proportions=proportions)).has_rsample
        for kind in ("mixture", "clustered")
        for proportions in ("uniform", "learned")
    }
    assert [name for name, has in found.items() if not has] == [("clustered", "learned")]


def test_support_is_the_prior_s():
    for inside, outside, options in (
        (9.0, np.nan, {}), (-1.9, 1.1, {"base_density": "uniform", "domain": (-2.0, 1.0)}),
        (30.0, -0.1, {"base_density": "lognormal", "domain": (0.1, 8.0)}),
    ):  # fmt: skip
        latents = untabulated(prior := make_prior("product", num_each=2, **options), validate_args=True)
        assert (latents.event_shape, latents.batch_shape, latents._validate_args) == ((2, 2), (), True)
        assert bool(latents.support(jnp.full((2, 2), inside)))
        assert np.isfinite(biject_to(latents.support)(jnp.zeros((2, 2)))).all()  # as NUTS moves
        assert not bool(latents.support(jnp.full((2, 2), 0.5).at[0, 1].set(outside)))
        assert untabulated(prior, validate_args=False)._validate_args is False


@pytest.mark.slow
def test_it_is_a_pytree_like_others():
    """Two priors as one, under jit and vmap, have the draws and densities of each; gradients reach the parameters."""
    prior = make_prior("mixture", num_each=2, grid_size=4, coefficient_scale=0.5)
    first = prior.init(jax.random.key(0))
    second = prior.init(jax.random.key(5))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(PriorDistribution(prior, p) for p in (first, second)))
    assert isinstance(both, Distribution)
    keys = jax.random.split(jax.random.key(3), 2)
    z = jax.jit(jax.vmap(lambda d, key: d.sample(key, (5,))))(both, keys)
    log_prob = jax.jit(jax.vmap(lambda d, z: d.log_prob(z)))(both, z)
    assert np.isfinite(log_prob).all()
    for i, params in enumerate((first, second)):
        np.testing.assert_allclose(z[i], prior.bind(params).sample(keys[i], 5), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_prob[i], prior.bind(params).log_prob(z[i]), rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda p: PriorDistribution(prior, p).log_prob(z[0]).sum())(first)
    expected = jax.grad(lambda p: prior.bind(p).log_prob(z[0]).sum())(first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient, expected)
    assert np.abs(expected["bank"]["coefficients"]).max() > 0.01


def test_a_prior_without_a_normaliser_is_refused(refuses):
    with refuses(ValueError, "neural", "normalised"):
        PriorDistribution(make_prior("neural"), {})
