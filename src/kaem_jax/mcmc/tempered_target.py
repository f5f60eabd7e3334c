"""Tempering of any density to a requested precision: a loop on the host around one compiled program."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.mcmc.host_loop import Sampler
from kaem_jax.mcmc.kernels import MALA, Kernel, make_kernel
from kaem_jax.mcmc.reference import Reference
from kaem_jax.mcmc.rounds import SWAPS
from kaem_jax.mcmc.target import LogDensityOfOne, Rows, Target
from kaem_jax.mcmc.tempered_run import TemperedRun, Until
from kaem_jax.settings.arguments import check_choice, check_integer, check_key

__all__ = ["tempered"]


def tempered(
    key: Array,
    log_prior: LogDensityOfOne | Reference | None,
    log_likelihood: LogDensityOfOne,
    z0: Any = None,
    *,
    reference: Reference | None = None,
    num_chains: int | None = 4,
    num_rounds: int | Until = Until(),
    warmup_rounds: int = 1000,
    num_temperatures: int | None = None,
    kernel: Kernel | str = MALA(),
    steps_per_round: int = 1,
    step_spread: float = 1.0,
    swap: str = "even_odd",
    max_draws: int = 2000,
    report: Callable[[TemperedRun], None] | None = None,
) -> TemperedRun:
    """Draws from log-density log_prior + log_likelihood, and log Z, by populations of tempered chains.

        run = kaem.mcmc.tempered(key, log_prior, log_likelihood, {"mean": jnp.zeros(3), "scale": jnp.zeros(())})
        print(run.log_z, run.log_z_error, run.draws["mean"].mean((0, 1)), run.warnings)

    Z is the integral of the density over that of the reference, which is 1 if the reference is normalised.

    Rung beta has the density reference^(1 - beta) target^beta, from the reference (by default the prior) at 0 to the
    target at 1. A warm-up of doubling stages tunes step sizes, the units of each coordinate and the ladder; then the
    tuning is fixed, and all rounds count. Under `jax.set_mesh` with axes `temp` and `data`, rungs lie along `temp` and
    populations along `data`; draws are the same on any number of devices. Inside jit use `tempered_posterior` instead.

    Args:
      key: a PRNG key.
      log_prior: maps one position to a scalar in nats; or a density with `sample` and `log_prob`, which is also the
        default reference; or None, which is 0.
      log_likelihood: maps one position to a scalar in nats.
      z0: one position, any pytree of floats, from which all chains start; with num_chains=None a batch of positions,
        one for each population. None draws the starts from the reference.
      reference: a density with `sample` and `log_prob`, whose draws refresh the first rung, such as `NormalReference`.
      num_chains: C, independent populations.
      num_rounds: the number of rounds that count, or a stopping rule `Until`.
      warmup_rounds: rounds before those that count.
      num_temperatures: T. None takes 16, and more if the barrier found in the warm-up needs more.
      kernel: an object such as `kaem_jax.mcmc.HMC(10)`, or its registered name; one with an accept step.
      steps_per_round: moves between exchanges.
      step_spread: standard deviation of the logarithm of a move's step size around that of its rung. Larger values, and
        `HMC`, suit densities of varying width, such as funnels. For others 0 is better, by up to a fifth.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.
      max_draws: limit on N, the draws kept for each population; more are thinned.
      report: called with the run so far at each check, for instance `print`.

    Raises:
      ValueError: an argument does not fit, or a log-density of one position is not a scalar, or NaN everywhere.
    """
    check_key(key)
    kernel = make_kernel(kernel)
    if not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so that draws and log Z are biased; take MALA()")
    check_choice("swap", swap, SWAPS)
    check_integer("warmup_rounds", warmup_rounds, low=1)
    check_integer("num_temperatures", 2 if num_temperatures is None else num_temperatures, low=2)
    if reference is None and hasattr(log_prior, "sample"):
        reference = cast(Reference, log_prior)
    if reference is None and log_prior is None:
        raise ValueError("log_prior=None leaves the first rung without a density: give a reference, too")
    key_start, key_run = jax.random.split(key)
    if z0 is None:
        if reference is None or num_chains is None:
            raise ValueError("z0=None needs a reference with `sample`, to start from, and num_chains")
        starts = reference.sample(key_start, (num_chains,))
    elif num_chains is None:
        starts = z0
    else:
        starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *jnp.shape(leaf))), z0)
    if reference is not None:
        drawn = jax.eval_shape(lambda key: reference.sample(key, (1,)), key_start)
        shapes = [jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], tree) for tree in (starts, drawn)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"z0 has shapes {shapes[0]} and draws of the reference {shapes[1]}: give both the same")
    rows = Rows(starts)
    target = Target(rows, log_prior, log_likelihood, reference)
    target.check()
    sampler = Sampler(target, kernel, steps_per_round, step_spread, swap, max_draws)
    first = num_rounds.first_rounds if isinstance(num_rounds, Until) else num_rounds
    check_integer("num_rounds", first, low=8)
    until = num_rounds if isinstance(num_rounds, Until) else Until(max_rounds=first)
    run = sampler.warmed(key_run, rows.flat(starts), warmup_rounds, num_temperatures, until).more(first)
    was_done = False
    while True:
        if report is not None:
            report(run)
        rounds, is_done = len(run.trace.log_likelihood), run.is_done
        if 2 * rounds > until.max_rounds or (is_done and was_done):
            return run
        run, was_done = run.more(rounds), is_done
