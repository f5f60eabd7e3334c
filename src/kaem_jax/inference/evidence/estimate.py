"""The result of every estimator of log p(x)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals import PriorProposal, Proposal
from kaem_jax.model import Model

_MIN_ESS, _MIN_SHARE = 20, 0.05  # of an estimate, else it is a bound
_MAX_BOUNDS = 0.05  # share of the data whose estimates may be bounds before their mean is one


class Evidence(NamedTuple):
    """Estimates of log p(x_b), constants of the likelihood included.

    Attributes:
      value: [B] nats.
      standard_error: [B] nats, Monte Carlo error of `value`.
      mean_standard_error: scalar, Monte Carlo error of the mean of `value` over data. If data share draws of the prior,
        their errors are correlated, and this is not the root mean square of `standard_error` over sqrt(B).
      ess: [B] effective sample size of the importance weights.
      is_bound: [B] bool, whether `value` is only a lower bound, because `ess` is too small (see the function
        `is_bound`) or the proposal has one mode and may miss others.
    """

    value: Array
    standard_error: Array
    mean_standard_error: Array
    ess: Array
    is_bound: Array


@jax.jit
def evidence_of_weights(log_weights: Array) -> Evidence:
    """The estimate from independent weights of each datum, whose exponentials average to p(x_b).

    Args:
      log_weights: [R, S, B] nats, from R independently fitted proposals. If these found different modes, the difference
        of their means gives the error.
    """
    num_fits, num, num_data = log_weights.shape
    total = num_fits * num
    value = jax.nn.logsumexp(log_weights, axis=(0, 1)) - jnp.log(total)
    relative = jnp.exp(log_weights - value)
    variance = jnp.sum(jnp.square(relative - 1), axis=(0, 1)) / (total * (total - 1))  # by the delta method
    if num_fits > 1:
        means = jnp.mean(relative, axis=1)
        variance = jnp.maximum(variance, jnp.sum(jnp.square(means - 1), axis=0) / (num_fits * (num_fits - 1)))
    ess = jnp.square(jnp.sum(relative, axis=(0, 1))) / jnp.sum(jnp.square(relative), axis=(0, 1))
    return Evidence(
        value=value,
        standard_error=jnp.sqrt(variance),
        mean_standard_error=jnp.sqrt(jnp.sum(variance)) / num_data,
        ess=ess,
        is_bound=is_bound(ess, total),
    )


def is_bound(ess: Array, num_draws: int) -> Array:
    """Whether an estimate is only a lower bound: so few effective draws may have missed nearly all of the posterior.

    Args:
      ess: [B] effective sample size.
      num_draws: draws or chains per datum.
    """
    return ~(ess >= max(_MIN_ESS, _MIN_SHARE * num_draws))  # True for NaN


def mean_is_bound(is_bound: Array) -> Array:
    """Whether the mean over data is only a bound: if more than one estimate in twenty is, by `is_bound`, bool [B]."""
    return is_bound.mean() > _MAX_BOUNDS


def is_prior(proposal: Proposal | None) -> bool:
    """Whether latents are proposed by the prior, whose draws all data share."""
    return proposal is None or isinstance(proposal, PriorProposal)


def checked_proposal(model: Model, proposal: Proposal | None) -> Proposal | None:
    """The proposal, None for the prior.

    Raises:
      ValueError: the prior is not normalised, and the proposal is another one.
    """
    if is_prior(proposal):
        return None
    if not model.prior.is_normalized:
        raise ValueError(
            f"proposal={proposal} needs a prior that is normalised, and this one is known up to a factor; give "
            "PriorProposal(): draws of the prior, weighted by the likelihood alone, need no normaliser"
        )
    return proposal
