"""Thermodynamic integration and the steppingstone estimate from a tempered population (docs/method.md, section 9)."""

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.evidence.estimate import Evidence, is_bound
from kaem_jax.inference.proposals.path import Path
from kaem_jax.mcmc import Kernel, effective_sample_size, power_ladder, tempered_posterior
from kaem_jax.settings.arguments import check_choice

__all__ = ["RULES", "integrate_log_likelihood", "tempered_evidence"]

RULES = ("steppingstone", "ti", "ti_left", "ti_right", "ti_trapezoid")
_NUM_BATCHES = 20  # batches of rounds; their spread gives the error


def integrate_log_likelihood(log_likelihood: Array, betas: Array, rule: str) -> tuple[Array, Array]:
    """Log Z_1 - log Z_0 from log-likelihoods on a ladder, and its standard error by batch means.

    d/dbeta log Z_beta = E_beta[l] increases in beta, so `ti_left` is a lower and `ti_right` an upper bound in
    expectation. `ti_trapezoid` is neither; `ti` corrects it by its leading error,
    -sum Delta_k^2 (Var_{k+1} l - Var_k l) / 12.
    `steppingstone` is sum_k log E_k exp(Delta_k l), consistent on any ladder.

    Args:
      log_likelihood: [R, T, B] nats, by round and rung.
      betas: [T].
      rule: one of `RULES`.

    Returns:
      Value and standard error, [B] each.

    Raises:
      ValueError: `rule` is unknown, or there are fewer than 2 rungs or 20 rounds.
    """
    check_choice("rule", rule, RULES)
    num_rounds, num_rungs, num_data = log_likelihood.shape
    if num_rungs < 2 or num_rounds < _NUM_BATCHES:
        raise ValueError(
            f"log_likelihood of shape {log_likelihood.shape}: wanted [R, T, B], R >= {_NUM_BATCHES} and T >= 2"
        )
    width = jnp.diff(betas)[:, None]
    size = num_rounds // _NUM_BATCHES
    batches = log_likelihood[-_NUM_BATCHES * size :].reshape(_NUM_BATCHES, size, num_rungs, num_data)
    if rule == "steppingstone":
        log_mean = jax.nn.logsumexp(width * batches[:, :, :-1], axis=1) - jnp.log(size)  # [N, T-1, B]
        log_ratio = jax.nn.logsumexp(log_mean, axis=0) - jnp.log(_NUM_BATCHES)
        value, deviation = jnp.sum(log_ratio, axis=0), jnp.sum(jnp.exp(log_mean - log_ratio) - 1, axis=1)
    else:
        mean = jnp.mean(batches, axis=1)  # [N, T, B]
        parts = {"ti_left": mean[:, :-1], "ti_right": mean[:, 1:]}
        sums = jnp.sum(width * parts.get(rule, (mean[:, :-1] + mean[:, 1:]) / 2), axis=1)
        if rule == "ti":
            # About the mean of all rounds, not the batch's own.
            variance = jnp.mean(jnp.square(batches - jnp.mean(mean, axis=0)), axis=1)
            sums -= jnp.sum(width**2 / 12 * jnp.diff(variance, axis=1), axis=1)
        value, deviation = jnp.mean(sums, axis=0), sums - jnp.mean(sums, axis=0)
    return value, jnp.sqrt(jnp.sum(deviation**2, axis=0) / (_NUM_BATCHES * (_NUM_BATCHES - 1)))


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

    If `num_rounds` cannot be cut into 20 batches of equal size, a few more are run. The result is also called a bound
    where a batch does not hold two independent rounds: the spread of batches would tell too small an error. `ti_left`
    and `ti_right` are bounds by construction, the latter an upper one.

    See `kaem_jax.log_evidence`. The log-gain of the path takes the place of the log-likelihood. With `refreshes` the
    rung at beta = 0 takes exact draws.
    """
    if num_rounds < _NUM_BATCHES:
        raise ValueError(f"num_rounds={num_rounds} must be at least {_NUM_BATCHES}, one for each batch")
    key_start, key_run = jax.random.split(key)
    num_rounds = -(-num_rounds // _NUM_BATCHES) * _NUM_BATCHES
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
    too_few = is_bound(ess, num_rounds) | ~(ess >= 2 * _NUM_BATCHES)
    mean_error = jnp.sqrt(jnp.sum(error**2)) / error.size
    return Evidence(value, error, mean_error, ess, too_few | (rule in ("ti_left", "ti_right")))


def _effective_rounds(trace: Array, betas: Array, rule: str) -> Array:
    """The smallest effective number of rounds of any rung [B], of what the rule takes from the trace [R, T, B].

    Steppingstone takes weights of all rungs but the last. Their rounds count less where weights differ, and where
    successive ones are alike. The last rung tells whether chains arrive at the posterior.
    """
    moved = jnp.max(trace, axis=0) > jnp.min(trace, axis=0)  # a chain that stood still has seen one point; NaN is none
    taken, share = trace, jnp.ones_like(trace[0])
    if rule == "steppingstone":
        log_weights = jnp.diff(betas)[:, None] * trace[:, :-1]
        weights = jnp.exp(log_weights - jnp.max(log_weights, axis=0))
        taken = jnp.concatenate([weights, trace[:, -1:]], axis=1)
        share = share.at[:-1].set(jnp.sum(weights, axis=0) ** 2 / (jnp.sum(weights**2, axis=0) * len(trace)))
    return jnp.min(jnp.where(moved, share * effective_sample_size(taken), 1), axis=0)
