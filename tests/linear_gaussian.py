"""A model with a known posterior: flat energies make the prior N(0, I); a linear decoder makes x | z Gaussian."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kaem_jax as kaem
from kaem_jax.kan.bases.rbf import RadialBasis
from kaem_jax.networks import Decoder


@dataclasses.dataclass(frozen=True)
class Linear(Decoder):
    """x = features @ weight + bias."""

    data_shape: tuple[int, ...]

    def init(self, key):
        raise NotImplementedError  # tests set the parameters

    def apply(self, params, features):
        return features @ params["weight"] + params["bias"]


@dataclasses.dataclass(frozen=True)
class Fixed(Decoder):
    """x = function(features), and nothing to learn."""

    function: Callable
    data_shape: tuple[int, ...] = (1,)

    def init(self, key):
        return {}

    def apply(self, params, features):
        return self.function(features)


def linear_gaussian(rng, num_latents, size, sigma):
    """Model, parameters, and the exact (posterior mean of z, log p(x)) as a function of x in float64."""
    flat = {"basis": RadialBasis(), "base_activation": "none", "coefficient_scale": 0.0, "grid_size": 1}
    prior = kaem.MixturePrior(num_latents=num_latents, num_components=1, **flat)
    model = kaem.Model(prior, Linear((size,)), kaem.Gaussian(sigma=sigma))
    weight, bias = rng.normal(size=(num_latents, size)), rng.normal(size=size)
    decoder = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    params = {"prior": prior.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}

    def exact(x):
        covariance = weight.T @ weight + sigma**2 * np.eye(size)
        gain = weight @ np.linalg.inv(covariance)
        return (x - bias) @ gain.T, stats.multivariate_normal(bias, covariance).logpdf(x)

    return model, params, exact
