"""A model of two latents, whose prior and encoder are a line or two each: they compile in no time."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import kaem_jax as kaem
from kaem_jax.networks import Encoder
from kaem_jax.priors import BoundPrior, Prior
from kaem_jax.priors.base import drawing
from tests.linear_gaussian import Fixed, Linear


class BoundNormal(BoundPrior):
    """Two latents around a parameter, of another law for other points."""

    @drawing
    def _sample(self, key, shape, points):
        return {"random": jax.random.normal, "sobol": jax.random.uniform}[points](key, (*shape, 2)) + self.params[
            "mean"
        ]

    @jax.jit
    def _log_prob(self, z):
        return -0.5 * jnp.sum(jnp.square(z - self.params["mean"]) + jnp.log(2 * jnp.pi), axis=-1)

    def _curvature(self, z):
        return jnp.ones_like(z)


@dataclasses.dataclass(frozen=True)
class Normal(Prior):
    """The prior of which that is the density; the bounds are what it says, and no more."""

    bounds: Any = None
    event_shape: ClassVar = (2,)

    def init(self, key):
        return {"mean": jnp.float32(0.5)}

    def _bind(self, params):
        return BoundNormal(self, params)


@functools.cache
def model_of(bounds=None):
    """Two values around a function of the latents."""
    return kaem.Model(Normal(bounds), Fixed(lambda z: 2 * jnp.sin(z), (2,)), kaem.Gaussian(0.7))


class Doubling(Encoder):
    """Which says of each datum twice its value."""

    def init(self, key):
        return {}

    def apply(self, params, x):
        return 2 * x, 0 * x


class Exact(NamedTuple):
    """A model with a linear decoder, its parameters, and in float64 the law of x; mean, as a function of data [B, D],
    and covariance of the posteriors."""

    model: kaem.Model
    params: Any
    law: Any
    mean: Callable
    covariance: np.ndarray


def linear(size, sigma):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(2, size)), rng.normal(size=size)
    law = stats.multivariate_normal(bias + 0.5 * weight.sum(axis=0), weight.T @ weight + sigma**2 * np.eye(size))
    covariance = np.linalg.inv(np.eye(2) + weight @ weight.T / sigma**2)
    decoder = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}

    def mean(x):
        return (0.5 + (np.asarray(x, np.float64) - bias) @ weight.T / sigma**2) @ covariance

    model = kaem.Model(Normal(), Linear((size,)), kaem.Gaussian(sigma))
    return Exact(model, PARAMS | {"decoder": decoder}, law, mean, covariance)


MODEL, ENCODER = model_of(), Doubling()
PARAMS = {"prior": {"mean": jnp.float32(0.5)}, "decoder": {}, "likelihood": {}, "encoder": {}}
BOUND = MODEL.prior.bind(PARAMS["prior"])
