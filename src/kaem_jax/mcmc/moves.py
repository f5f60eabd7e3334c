"""Moves of chains on power posteriors p(x|z)^beta p(z)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.transforms import choose, expand_to
from kaem_jax.mcmc.kernels import Bounds, Kernel, LogDensity, value_and_score


class Chains(NamedTuple):
    """Positions [..., B, *event] with both log-densities [..., B] in nats and both scores [..., B, *event]."""

    position: Array
    log_prior: Array
    log_likelihood: Array
    prior_score: Array
    likelihood_score: Array


def evaluate(position: Array, log_prior: LogDensity, log_likelihood: LogDensity) -> Chains:
    """Chains at `position`; this one evaluation serves the move, the exchange and the importance weight."""
    prior, prior_score = value_and_score(log_prior, position)
    likelihood, likelihood_score = value_and_score(log_likelihood, position)
    return Chains(position, prior, likelihood, prior_score, likelihood_score)


def move(
    key: Array, chains: Chains, log_prior: LogDensity, log_likelihood: LogDensity, beta: Array, step_size: Array,
    kernel: Kernel, bounds: Bounds, exact: tuple[Array, Array] | None = None, scale: Array | None = None,
) -> tuple[Chains, Array]:  # fmt: skip
    """One step of `kernel` for every chain on its own power posterior.

    Args:
      beta, step_size: [..., B], per chain.
      exact: (mask [..., B], draws [B, *event]): chains in the mask take these draws instead.
      scale: [..., B, *event], unit of each coordinate; None is 1.

    Returns:
      The chains and their acceptance probabilities [..., B].
    """
    key_noise, key_accept = jax.random.split(key)
    score = _tempered(beta, chains)
    moved = kernel.propose(
        key_noise, chains.position, score, step_size, bounds, scale,
        score_of=lambda z: _tempered(beta, evaluate(z, log_prior, log_likelihood)),
    )  # fmt: skip
    position = moved.position
    if exact is not None:
        position = choose(exact[0], jnp.broadcast_to(exact[1], position.shape), position)
    new = evaluate(position, log_prior, log_likelihood)
    gain = new.log_prior - chains.log_prior
    gain += times_beta(beta, new.log_likelihood - chains.log_likelihood)
    probability = kernel.acceptance(moved, _tempered(beta, new), gain)
    if not kernel.is_exact:
        return new, probability
    if exact is not None:
        probability = jnp.where(exact[0], 1, probability)
    accepted = jax.random.uniform(key_accept, probability.shape, probability.dtype) < probability
    return jax.tree.map(functools.partial(choose, accepted), new, chains), probability


def _tempered(beta: Array, chains: Chains) -> Array:
    """The score of log p(z) + beta log p(x|z)."""
    return chains.prior_score + times_beta(expand_to(beta, chains.position.ndim), chains.likelihood_score)


def times_beta(beta: Array, value: Array) -> Array:
    """The product, but 0 at beta = 0 even if `value` is infinite: a log-likelihood may be -inf."""
    return jnp.where(beta == 0, 0, beta * value)
