"""Draws from the posteriors of a minibatch, whichever sampler made them. Nothing in them is differentiated."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import STATIC
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import Table

__all__ = ["ChainDraws", "Draws", "SharedDraws", "TemperedDraws"]


class Draws(Protocol):
    """A sample of p(z | x_b) for every datum b of a minibatch."""

    @property
    def z(self) -> Array:
        """[S, *event] or [C, B, *event]."""

    @property
    def metrics(self) -> dict[str, Array]:
        """The sampler's diagnostics, scalars."""

    @property
    def num_data(self) -> int:
        """B, the number of data whose posteriors these are."""

    def mean(self, values: Array) -> Array:
        """The posterior mean of a function whose values at `z` are given: [S, ...] or [C, B, ...] to [B, ...]."""

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, table: Table) -> Array:
        """The posterior mean of log p(x_b | z), [B] nats, differentiable in `params`."""

    def pooled(self) -> tuple[Array, Array]:
        """The average posterior over the minibatch: latents [N, *event] and weights [N] that add up to 1."""

    def one(self, key: Array) -> Array:
        """One draw for each datum, [B, *event]."""


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

    @property
    def num_data(self) -> int:
        return self.weights.shape[0]

    def mean(self, values: Array) -> Array:
        return jnp.tensordot(self.weights, values, axes=1)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, table: Table) -> Array:
        log_likelihood = model.pairwise_log_likelihood(params, self.z, x, table)
        # A point that cannot have generated the datum has weight 0 and log-likelihood -inf, whose product is NaN.
        return jnp.sum(jnp.where(self.weights == 0, 0, self.weights * log_likelihood), axis=-1)

    def pooled(self) -> tuple[Array, Array]:
        return self.z, jnp.mean(self.weights, axis=0)

    def one(self, key: Array) -> Array:
        return self.z[jax.random.categorical(key, jnp.log(self.weights))]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChainDraws:
    """Separate chains for each datum, with equal weights.

    Attributes:
      z: [C, B, *event].
      metrics: scalars.
    """

    z: Array
    metrics: dict[str, Array]

    @property
    def num_data(self) -> int:
        return self.z.shape[1]

    def mean(self, values: Array) -> Array:
        return jnp.mean(values, axis=0)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, table: Table) -> Array:
        return self.mean(model.log_likelihood(params, self.z, x, table))

    def pooled(self) -> tuple[Array, Array]:
        z = self.z.reshape(-1, *self.z.shape[2:])
        return z, jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)

    def one(self, key: Array) -> Array:
        return self.z[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemperedDraws(ChainDraws):
    """The last rung of a tempered population, and the rungs below it.

    Attributes:
      rungs: [T, C, B, *event], after the last exchange. The last rung equals `z`, but `z` is distributed over the
        devices of all rungs.
      betas: [T].
      acceptance: [T] mean acceptance probability of the moves, by rung.
      swap_acceptance: [T-1] mean acceptance probability of exchanges.
      starts_at_prior: static, whether the rungs are powers of the likelihood times the prior.
    """

    rungs: Array
    betas: Array
    acceptance: Array
    swap_acceptance: Array
    starts_at_prior: bool = dataclasses.field(default=True, metadata=STATIC)

    def mean_log_likelihood(self, model: Model, params: Params, x: Array, table: Table) -> Array:
        # Only the last rung is differentiated: the devices of all rungs share its data.
        return super().mean_log_likelihood(model, params, constrain(x, ("data", "temp")), table)

    def log_likelihood_by_rung(self, model: Model, params: Params, x: Array, table: Any) -> Array:
        """Log p(x_b | z) on every rung, [T, C, B] nats, differentiable in `params`."""
        return model.log_likelihood(params, self.rungs, x, table)
