"""Thermodynamic integration and the steppingstone estimate from a tempered population (docs/method.md, section 9)."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.estimate import Evidence, is_bound
from kaem_jax.inference.proposals.annealing_path import Path
from kaem_jax.mcmc import Kernel, effective_sample_size, power_ladder, tempered_posterior

RULES = ("steppingstone", "ti")
_MIN_ROUNDS, _MIN_ESS = 20, 40  # below which nothing is said, or only a bound


def integrate_log_likelihood(log_likelihood: Array, betas: Array, rule: str) -> tuple[Array, Array]:
    """Log Z_1 - log Z_0 from log-likelihoods on a ladder, and its standard error, [B] each.

    `ti` is the trapezoid of E_beta[l], corrected by its leading error, -sum Delta_k^2 (Var_{k+1} l - Var_k l) / 12.
    `steppingstone` is sum_k log E_k exp(Delta_k l), consistent on any ladder. The error is that of the mean of the
    estimate's influence function over rounds, and includes correlations between rungs and between rounds.

    Args:
      log_likelihood: [R, T, B] nats, by round and rung.
      betas: [T].
      rule: one of `RULES`.
    """
    width = jnp.diff(betas)[:, None]
    if rule == "steppingstone":
        log_weights = width * log_likelihood[:, :-1]
        log_ratio = jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_likelihood))
        value, influence = jnp.sum(log_ratio, axis=0), jnp.sum(jnp.exp(log_weights - log_ratio) - 1, axis=1)
    else:
        squares = jnp.square(log_likelihood - jnp.mean(log_likelihood, axis=0))
        sums = jnp.sum(width * (log_likelihood[:, :-1] + log_likelihood[:, 1:]) / 2, axis=1)
        sums -= jnp.sum(width**2 / 12 * jnp.diff(squares, axis=1), axis=1)
        value = jnp.mean(sums, axis=0)
        influence = sums - value
    return value, jnp.sqrt(jnp.mean(influence**2, axis=0) / effective_sample_size(influence))


def tempered_evidence(
    key: Array,
    path: Path,
    rule: str,
    *,
    num_temperatures: int,
    num_rounds: int,
    steps_per_round: int,
    kernel: Kernel,
    refreshes: bool,
) -> Evidence:
    """`integrate_log_likelihood` over `num_rounds` rounds of a population, after half as many warm-up rounds.

    The result is also called a bound if fewer than 40 rounds are effective: their spread would underestimate the error.

    See `kaem_jax.log_evidence`. The log-gain of the path takes the place of the log-likelihood. With `refreshes` the
    rung at beta = 0 takes exact draws.
    """
    if num_rounds < _MIN_ROUNDS:
        raise ValueError(f"num_rounds={num_rounds} must be at least {_MIN_ROUNDS}")
    key_start, key_run = jax.random.split(key)
    betas = power_ladder(num_temperatures, path.exponent)
    run = tempered_posterior(
        key_run,
        path.log_start,
        path.log_gain,
        path.draw(key_start, num_temperatures),
        betas,
        kernel=kernel,
        num_rounds=num_rounds,
        steps_per_round=steps_per_round,
        bounds=path.bounds,
        refresh=path.refresh if refreshes else None,
        warmup_rounds=max(1, num_rounds // 2),
    )
    trace = run.info.log_likelihood
    value, error = integrate_log_likelihood(trace, betas, rule)
    ess = _effective_rounds(trace, betas, rule)
    too_few = is_bound(ess, num_rounds) | ~(ess >= _MIN_ESS)
    mean_error = jnp.sqrt(jnp.sum(error**2)) / error.size
    return Evidence(value, error, mean_error, ess, too_few)


def _effective_rounds(trace: Array, betas: Array, rule: str) -> Array:
    """The smallest effective number of rounds of any rung, [B], of the values that the rule takes from trace [R, T, B].

    Steppingstone takes weights on all rungs but the last; unequal or autocorrelated weights lower their number. The
    last rung shows whether chains arrive at the posterior.
    """
    moved = jnp.max(trace, axis=0) > jnp.min(trace, axis=0)  # a chain that stood still has seen one point; NaN is none
    taken, share = trace, jnp.ones_like(trace[0])
    if rule == "steppingstone":
        log_weights = jnp.diff(betas)[:, None] * trace[:, :-1]
        weights = jnp.exp(log_weights - jnp.max(log_weights, axis=0))
        taken = jnp.concatenate([weights, trace[:, -1:]], axis=1)
        share = share.at[:-1].set(jnp.sum(weights, axis=0) ** 2 / (jnp.sum(weights**2, axis=0) * len(trace)))
    return jnp.min(jnp.where(moved, share * effective_sample_size(taken), 1), axis=0)
