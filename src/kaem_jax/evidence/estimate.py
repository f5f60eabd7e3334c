"""What every estimator of log p(x) returns."""

from typing import NamedTuple

from jax import Array

__all__ = ["Evidence"]


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
