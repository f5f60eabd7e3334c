"""Draws from the posteriors of a minibatch. Nothing in them is differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import BoundPrior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedDraws:
    """Points shared by all data, with weights for each datum.

    Attributes:
      z: [S, *event].
      weights: [B, S], rows add up to 1.
      metrics: scalars.
    """

    z: Array
    weights: Array
    metrics: dict[str, Array]

    def mean(self, values: Array) -> Array:
        """The posterior mean of a function, from its values [S, ...] or [C, B, ...] at `z`: [B, ...]."""
        return jnp.tensordot(self.weights, values, axes=1)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        """The posterior mean of log p(x_b | z), [B] nats, differentiable in `params`."""
        log_likelihood = model.pairwise_log_likelihood(params, self.z, x, prior)
        # A point that cannot have generated the datum has weight 0 and log-likelihood -inf, whose product is NaN.
        return jnp.sum(jnp.where(self.weights == 0, 0, self.weights * log_likelihood), axis=-1)

    def pooled(self) -> tuple[Array, Array]:
        """The average posterior over the minibatch: latents [N, *event] and weights [N] that add up to 1."""
        return self.z, jnp.mean(self.weights, axis=0)

    def one(self, key: Array) -> Array:
        return self.z[jax.random.categorical(key, jnp.log(self.weights))]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChainDraws:
    """Separate chains for each datum, with equal weights; methods as of `SharedDraws`.

    Attributes:
      z: [C, B, *event].
      metrics: scalars.
    """

    z: Array
    metrics: dict[str, Array]

    def mean(self, values: Array) -> Array:
        return jnp.mean(values, axis=0)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        return self.mean(model.log_likelihood(params, self.z, x, prior))

    def pooled(self) -> tuple[Array, Array]:
        z = self.z.reshape(-1, *self.z.shape[2:])
        return z, jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)

    def one(self, key: Array) -> Array:
        return self.z[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemperedDraws(ChainDraws):
    """The last rung of a tempered population."""

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        # The devices of all rungs share the data of the last one.
        return super().mean_log_likelihood(model, params, constrain(x, ("data", "temp")), prior)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RungDraws(TemperedDraws):
    """The last rung, and all rungs for the paper's objectives (docs/method.md, section 9).

    Attributes:
      rungs: [T, C, B, *event], after the last exchange.
      betas: [T].
      objective: static, `thermodynamic` or `steppingstone`.
    """

    rungs: Array
    betas: Array
    objective: str = dataclasses.field(metadata=STATIC)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, prior: BoundPrior) -> Array:
        """The paper's estimate of log p(x_b), [B] nats; its gradient treats the draws of all rungs as fixed."""
        log_likelihood = model.log_likelihood(params, self.rungs, x, prior)  # [T, C, B]
        width = jnp.diff(self.betas)[:, None]
        if self.objective == "thermodynamic":
            mean = jnp.mean(log_likelihood, axis=1)
            return jnp.sum(width * (mean[:-1] + mean[1:]) / 2, axis=0)
        ratios = jax.nn.logsumexp(width[..., None] * log_likelihood[:-1], axis=1)
        return jnp.sum(ratios - jnp.log(log_likelihood.shape[1]), axis=0)


Draws = SharedDraws | ChainDraws
"""A sample of p(z | x_b) for every datum b of a minibatch."""
