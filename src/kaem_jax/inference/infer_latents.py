"""Posteriors of the latents of data. Pure, also inside jit."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.log_prob import check_tokens, may_be_missing, of_observed
from kaem_jax.inference.proposals import Laplace, Proposal
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.settings.arguments import check_key, check_model


class Encoded(NamedTuple):
    """Posteriors of latents.

    Attributes:
      mean, spread: [B, *event_shape], mean and standard deviation of p(z | x); spread is NaN for a single draw.
      clusters: [B, C] p(c | x) of a clustered prior, else None.
    """

    mean: Array
    spread: Array
    clusters: Array | None


@full_precision
def infer_latents(
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    *,
    num_draws: int = 16,
    num_steps: int = 100,
    proposal: Proposal | None = None,
    may_miss: bool | None = None,
) -> Encoded:
    """Posterior means and spreads of the latents of x [B, *data_shape], and p(c | x).

    Arguments are as for `kaem_jax.impute`, and `may_miss` as for `kaem_jax.log_prob`.

    Raises:
      ValueError: the model takes tokens, and x has NaN or fractions.

    Example:
      >>> kaem.infer_latents(key, model, params, x, num_draws=4, num_steps=5).mean.shape
      (10, 2)
    """
    check_key(key)
    check_model(model)
    check_tokens(model, x)
    seen = of_observed(model) if may_be_missing(x, may_miss) else model
    z = posterior_draws(key, seen, params, x, num_draws, num_steps, proposal)
    clusters = None
    if isinstance(model.prior, ClusteredPrior):
        clusters = jnp.mean(jnp.exp(model.prior.bind(params["prior"]).log_responsibilities(z)), axis=0)
    return Encoded(jnp.mean(z, axis=0), jnp.std(z, axis=0, ddof=1), clusters)


@functools.partial(jax.jit, static_argnames=("model", "num_draws", "num_steps", "proposal"))
def posterior_draws(
    key: Array, model: Model, params: Params, x: Array, num_draws: int, num_steps: int, proposal: Proposal | None
) -> Array:
    """Posterior draws of latents, [S, B, *event]."""
    proposal = Laplace() if proposal is None else proposal
    sampler = ProposalChains(proposal=proposal, num_steps=num_steps, num_chains=num_draws)
    draws, _ = sampler.step(key, 0, (), model, params, x)
    return draws.z
