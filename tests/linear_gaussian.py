"""A model with a known posterior: flat energies make the prior N(0, I); a linear decoder makes x | z Gaussian."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kaem_jax as kaem
from tests.builders import wild_prior


@dataclasses.dataclass(frozen=True)
class Linear:
    """x = features @ weight + bias."""

    data_shape: tuple[int, ...]

    def init(self, key):
        raise NotImplementedError  # tests set the parameters

    def apply(self, params, features):
        return features @ params["weight"] + params["bias"]


@dataclasses.dataclass(frozen=True)
class Fixed:
    """x = function(features), and nothing to learn."""

    function: Callable
    data_shape: tuple[int, ...] = (1,)

    def init(self, key):
        return {}

    def apply(self, params, features):
        return self.function(features)


def two_modes():
    """One latent with a wild prior, seen through its square: model, parameters, data, and log p(x) by quadrature."""
    prior, of_prior = wild_prior("mixture", 2.0, num_latents=1)
    model = kaem.Model(prior, Fixed(jnp.square), kaem.Gaussian(0.2))
    x, z = jnp.asarray([[0.1], [1.0], [4.0], [6.0]]), np.linspace(-8, 8, 400_001)
    log_prior = np.asarray(prior.log_prob(of_prior, jnp.asarray(z[:, None], jnp.float32)), np.float64)
    terms = log_prior + stats.norm.logpdf(np.asarray(x, np.float64), z**2, 0.2)
    params = {"prior": of_prior, "decoder": {}, "likelihood": {}}
    return model, params, x, np.log(np.trapezoid(np.exp(terms), z, axis=-1))


def linear_gaussian(rng, num_latents, size, sigma):
    """Model, parameters, and the exact (posterior mean of z, log p(x)) as a function of x in float64."""
    prior = kaem.MixturePrior(num_latents=num_latents, num_components=1, base_activation="none", coefficient_scale=0.0)
    model = kaem.Model(prior, Linear((size,)), kaem.Gaussian(sigma=sigma))
    weight, bias = rng.normal(size=(num_latents, size)), rng.normal(size=size)
    decoder = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    params = {"prior": prior.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}

    def exact(x):
        covariance = weight.T @ weight + sigma**2 * np.eye(size)
        gain = weight @ np.linalg.inv(covariance)
        return (x - bias) @ gain.T, stats.multivariate_normal(bias, covariance).logpdf(x)

    return model, params, exact
