"""Held-out log-likelihood of a model."""

import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence import Effort, Estimator, mean_is_bound
from kaem_jax.inference.proposals import Proposal
from kaem_jax.model import Model, Params

__all__ = ["held_out_log_likelihood"]


def held_out_log_likelihood(
    key: Array, model: Model, params: Params, x: Array, estimator: Estimator, proposal: Proposal
) -> tuple[dict[str, Array], Effort]:
    """Mean log p(x), in expectation a lower bound, as named scalars, and what it cost.

    Args:
      key: a PRNG key; the same one at every evaluation makes successive values comparable.
      x: [N, *data_shape] held-out data.
      estimator: the method and its effort.
      proposal: from which it starts.

    Returns:
      `log_likelihood` (nats per datum), `log_likelihood_standard_error` (Monte Carlo error of that mean), `ess` (median
      over data), `ess_min`, `num_bounds` (number of data whose estimates are only bounds), `is_bound` (whether so many
      are that the mean is only a bound); and the effort.
    """
    estimate, effort = estimator(key, model, params, x, proposal)
    return {
        "log_likelihood": jnp.mean(estimate.value),
        "log_likelihood_standard_error": estimate.mean_standard_error,
        "ess": jnp.median(estimate.ess),
        "ess_min": jnp.min(estimate.ess),
        "num_bounds": jnp.sum(estimate.is_bound),
        "is_bound": mean_is_bound(estimate.is_bound),
    }, effort
