"""The interface of likelihoods."""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params = dict[str, Array]

_ROUNDING = 1e-6


class Likelihood(abc.ABC):
    """p(x | output), independent over the D values of a datum or over groups of them. Static and hashable.

    Your own likelihood derives from this class and defines `terms`, `mean` and `sample`; see docs/extend.md. With
    `log_mass`, `sample_within` and `dispersion` it also works with bounds `low`, `high` [D] of values.

    Attributes:
      takes_logits: whether the decoder's output must not be squashed.
      takes_tokens: whether data are whole numbers.
      may_miss: whether NaN marks an unknown value.
      has_intervals: whether there are `log_mass`, `sample_within` and `dispersion`.
    """

    takes_logits = False
    takes_tokens = False
    may_miss = False
    has_intervals = False

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder's output for one datum."""
        return data_shape

    def check_output(self, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raises a ValueError if the decoder's output for one latent must not have this shape."""

    def check_data(self, x: np.ndarray) -> None:  # noqa: B027
        """Raises a ValueError for data [N, D] that the likelihood cannot model."""

    def init(self, key: Array) -> Params:
        """Initial parameters; empty if nothing is learned."""
        return {}

    @abc.abstractmethod
    def terms(self, params: Params, output: Array, x: Array) -> Array:
        """Each value's share of the log-probability: output [..., B, D], x [B, D] -> [..., B, D] nats."""

    @abc.abstractmethod
    def mean(self, params: Params, output: Array) -> Array:
        """E[x | output], of the shape of data."""

    @abc.abstractmethod
    def sample(self, key: Array, params: Params, output: Array) -> Array:
        """A draw of x."""

    def log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Paired: output [..., B, D], x [B, D] -> [..., B] nats."""
        terms = self.terms(params, output, x)
        if terms.ndim < x.ndim or terms.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"{type(self).__name__}.terms has shape {terms.shape}; it must be [..., B, D], a value for each of x "
                f"{x.shape}"
            )
        return jnp.sum(terms, axis=-1)

    def pairwise_log_prob(self, params: Params, output: Array, x: Array) -> Array:
        """Every pair: output [S, D], x [B, D] -> [B, S] nats."""
        return jax.lax.map(lambda one: self.log_prob(params, output, one), x)  # all pairs at once would be [B, S, D]

    def log_mass(self, params: Params, output: Array, low: Array, high: Array) -> Array:
        """Each value's share of the log-probability of lying between the bounds, [..., D] nats."""
        raise NotImplementedError(f"{type(self).__name__} has no probabilities of intervals")

    def sample_within(self, key: Array, params: Params, output: Array, low: Array, high: Array) -> Array:
        """A draw between the bounds."""
        raise NotImplementedError(f"{type(self).__name__} has no draws in intervals")

    def dispersion(self, params: Params, output: Array) -> Array | float:
        """The variance of a value over the slope of its mean in `output`."""
        raise NotImplementedError(f"{type(self).__name__} has no dispersion")


def check_in_unit_interval(x: np.ndarray, what: str) -> None:
    """Raises a ValueError if a value that is not NaN lies outside 0..1, the range of `what`."""
    low, high = np.nanmin(x, initial=np.inf), np.nanmax(x, initial=-np.inf)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"x ranges from {low:.4g} to {high:.4g}, and {what} makes values in 0..1: scale x, or change it"
        )
