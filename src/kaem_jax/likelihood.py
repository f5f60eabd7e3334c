"""Per-datum log-likelihoods log p(x | output) in nats, constants included, on data flattened to D values."""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["LIKELIHOOD_KINDS", "Bernoulli", "Gaussian", "Likelihood", "make_likelihood"]

Params = dict[str, Array]


class Likelihood(Protocol):
    """p(x | output), independent over the D values of a datum. Static and hashable."""

    def init(self, key: Array) -> Params:
        """Initial parameters; empty where nothing is learned."""
        ...

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Paired: output [..., B, D], x [B, D] -> [..., B] nats."""
        ...

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Every pair: output [S, D], x [B, D] -> [B, S] nats, as one matrix product."""
        ...

    def mean(self, params: Params, output: Array) -> Array:
        """E[x | output], of the shape of `output`."""
        ...

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        """A draw of x, of the shape of `output`."""
        ...


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(x; output, sigma^2 I).

    Attributes:
      sigma: the standard deviation, or its initial value.
      learn_sigma: whether sigma is the parameter exp(log_sigma), shared by all D values.
    """

    sigma: float = 0.3
    learn_sigma: bool = False

    def __post_init__(self):
        if not self.sigma > 0:
            raise ValueError(f"sigma={self.sigma} must be positive")

    def init(self, key: Array) -> Params:
        del key
        return {"log_sigma": jnp.asarray(math.log(self.sigma), float)} if self.learn_sigma else {}

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        return self._from_distance(params, jnp.sum(jnp.square(x - output), axis=-1), x.shape[-1])

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        # |x - y|^2 by one matrix product. Centring keeps the norms small, so cancellation loses few digits; TF32 or
        # bfloat16 would cause errors of whole nats.
        centre = jax.lax.stop_gradient(jnp.mean(x, axis=0))
        x, output = x - centre, output - centre
        product = jnp.matmul(x, output.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.sum(x * x, axis=-1)[:, None] - 2 * product + jnp.sum(output * output, axis=-1)
        return self._from_distance(params, distance, x.shape[-1])

    def mean(self, params: Params, output: Array) -> Array:
        del params
        return output

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        sigma = jnp.exp(params["log_sigma"]) if self.learn_sigma else self.sigma
        return output + sigma * jax.random.normal(key, output.shape, output.dtype)

    def _from_distance(self, params: Params, squared_distance: Array, size: int) -> Array:
        log_sigma = params["log_sigma"] if self.learn_sigma else math.log(self.sigma)
        constant = size * (log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * squared_distance * jnp.exp(-2 * jnp.asarray(log_sigma, squared_distance.dtype)) - constant


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli values with `output` as logits; x in [0, 1]."""

    def init(self, key: Array) -> Params:
        del key
        return {}

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        del params
        return jnp.sum(x * output - jax.nn.softplus(output), axis=-1)

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        del params
        product = jnp.matmul(x, output.T, precision=jax.lax.Precision.HIGHEST)
        return product - jnp.sum(jax.nn.softplus(output), axis=-1)

    def mean(self, params: Params, output: Array) -> Array:
        del params
        return jax.nn.sigmoid(output)

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        return jax.random.bernoulli(key, self.mean(params, output)).astype(output.dtype)


LIKELIHOOD_KINDS = ("bernoulli", "gaussian")


def make_likelihood(kind: str, *, sigma: float = 0.3, learn_sigma: bool = False) -> Likelihood:
    """Builds the likelihood `kind`; `sigma` and `learn_sigma` belong to `gaussian`.

    Raises:
      ValueError: `kind` is not one of `LIKELIHOOD_KINDS`, or sigma is not positive.
    """
    if kind == "gaussian":
        return Gaussian(sigma, learn_sigma)
    if kind == "bernoulli":
        return Bernoulli()
    raise ValueError(f"kind={kind!r} is not known; allowed: {', '.join(LIKELIHOOD_KINDS)}")
