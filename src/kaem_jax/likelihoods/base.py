"""The interface of likelihoods, and what most of them share."""

import abc
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params = dict[str, Array]

_ROUNDING = 1e-6


class Likelihood(Protocol):
    """p(x | output), independent over the D values of a datum, or over groups of them. Static and hashable.

    Optional methods: `output_shape(data_shape)`, the shape of an output if it is not that of data;
    `check_output(shape)`, which raises a ValueError if the decoder's output for one latent must not have this shape;
    and `check_data(x)`, which raises a ValueError for data (a NumPy array [N, D]) that the likelihood cannot model.
    Optional methods for bounds `low`, `high` [D]: `log_mass(params, output, low, high)`, what each value adds to the
    log-probability of lying between them, [..., D] nats; `sample_within(key, params, output, low, high)`, a draw
    between them; and `dispersion(params, output)`, the variance of a value over the slope of its mean in `output`.
    Optional booleans: `takes_logits` (the output must not be squashed), `may_miss` (NaN marks an unknown value) and
    `takes_tokens` (data are whole numbers).
    """

    def init(self, key: Array) -> Params:
        """Initial parameters; empty if nothing is learned."""

    def terms(self, params: Params, output: Array, x: Array) -> Array:
        """What each value adds to the log-probability: output [..., B, D], x [B, D] -> [..., B, D] nats."""

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Paired: output [..., B, D], x [B, D] -> [..., B] nats."""

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Every pair: output [S, D], x [B, D] -> [B, S] nats."""

    def mean(self, params: Params, output: Array) -> Array:
        """E[x | output], of the shape of data."""

    def sample(self, key: Array, params: Params, output: Array) -> Array:
        """A draw of x."""


class Termwise(abc.ABC):
    """Base class of likelihoods that define `terms`: `log_prob` is the sum of these."""

    def init(self, key: Array) -> Params:
        return {}

    @abc.abstractmethod
    def terms(self, params: Params, output: Array, x: Array) -> Array: ...

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        terms = self.terms(params, output, x)
        if terms.ndim < x.ndim or terms.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"{type(self).__name__}.terms has shape {terms.shape}; it must be [..., B, D], a value for each of x "
                f"{x.shape}"
            )
        return jnp.sum(terms, axis=-1)

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        return jax.lax.map(lambda one: self.log_prob(params, output, one), x)  # all pairs at once would be [B, S, D]


def check_in_unit_interval(x: np.ndarray, what: str) -> None:
    """Raises a ValueError if a value that is not NaN lies outside 0..1, the range of values that `what` models."""
    low, high = np.nanmin(x, initial=np.inf), np.nanmax(x, initial=-np.inf)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"x ranges from {low:.4g} to {high:.4g}, and {what} makes values in 0..1: scale x, or change it"
        )
