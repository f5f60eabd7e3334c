"""What every estimator of log p(x) returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Evidence", "evidence_of_weights", "is_bound"]

_MIN_ESS, _MIN_SHARE = 20, 0.05  # of an estimate, else it is a bound


class Evidence(NamedTuple):
    """Estimates of log p(x_b), constants of the likelihood included.

    Attributes:
      value: [B] nats.
      standard_error: [B] nats, Monte Carlo error of `value`.
      mean_standard_error: scalar, Monte Carlo error of the mean of `value` over data. Proposals of `importance` are
        shared, so its errors are correlated and this is not the root mean square of `standard_error` over sqrt(B).
      ess: [B] effective sample size: of the importance weights, or of the tempered chain at beta = 1.
    """

    value: Array
    standard_error: Array
    mean_standard_error: Array
    ess: Array


def evidence_of_weights(log_weights: Array) -> Evidence:
    """The estimate from independent weights of each datum's own, [S, B] nats, whose exponentials average to p(x_b)."""
    num, num_data = log_weights.shape
    value = jax.nn.logsumexp(log_weights, axis=0) - jnp.log(num)
    relative = jnp.exp(log_weights - value)
    error = jnp.sqrt(jnp.sum(jnp.square(relative - 1), axis=0) / (num * (num - 1)))  # by the delta method
    return Evidence(
        value=value,
        standard_error=error,
        mean_standard_error=jnp.sqrt(jnp.sum(error**2)) / num_data,
        ess=jnp.square(jnp.sum(relative, axis=0)) / jnp.sum(jnp.square(relative), axis=0),
    )


def is_bound(ess: float, num_draws: int) -> bool:
    """Whether an estimate is only a lower bound, whose standard error says nothing of its distance to the truth.

    Weights of so few effective draws may have missed nearly all of the posterior, and their spread does not show it.

    Args:
      ess: effective sample size, the median over data as a rule.
      num_draws: proposals or chains for each datum.
    """
    return not ess >= max(_MIN_ESS, _MIN_SHARE * num_draws)
