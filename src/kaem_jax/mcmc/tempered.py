"""Tempering of a density until a requested precision or a number of rounds is reached."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.mcmc.fitted_reference import fit_reference
from kaem_jax.mcmc.kernels import MALA, Kernel, make_kernel
from kaem_jax.mcmc.modes import find_modes
from kaem_jax.mcmc.population import Population, Rules
from kaem_jax.mcmc.rounds import SWAPS
from kaem_jax.mcmc.target import LogDensityOfOne, Reference, Rows, Target, held
from kaem_jax.mcmc.tempered_run import TemperedRun, Until
from kaem_jax.settings.arguments import check_choice, check_integer, check_key

_RUNGS, _FITTED_RUNGS = 16, 6  # of the first ladder, from the given reference and from the fitted one
_FIRST_FIT = 4  # the share of the second warm-up, one in four, after which the reference is fitted again
_NUM_REFERENCE = 1024  # draws of the reference from which ascents start
_MOST_COORDINATES = 256  # for which covariances are fitted
_CONFIRMATION = 4  # rounds are confirmed by a quarter more
_THINNED = 16  # rounds between draws to which a normal is fitted


def tempered(
    key: Array,
    log_prior: LogDensityOfOne | Reference | None,
    log_likelihood: LogDensityOfOne,
    z0: Any = None,
    *,
    args: tuple[Any, ...] = (),
    reference: Reference | None = None,
    fits_reference: bool = True,
    num_chains: int | None = 4,
    num_rounds: int | Until = Until(),
    warmup_rounds: int = 1000,
    num_temperatures: int | None = None,
    kernel: Kernel | str = MALA(),
    steps_per_round: int = 1,
    step_spread: float = 1.0,
    swap: str = "even_odd",
    max_bytes: int = 2**28,
    report: Callable[[TemperedRun], None] | None = None,
) -> TemperedRun:
    """Draws from log-density log_prior + log_likelihood, and log Z, by populations of tempered chains.

        run = kaem.mcmc.tempered(key, log_prior, log_likelihood, {"mean": jnp.zeros(3), "scale": jnp.zeros(())})
        print(run.log_z, run.log_z_error, run.draws["mean"].mean((0, 1)), run.warnings)

    Z is the integral of the density over that of the reference, which is 1 if the reference is normalised. Rung beta
    has the density reference^(1 - beta) target^beta; the reference is the prior by default.

    A warm-up of doubling stages tunes step sizes, units of coordinates and the ladder, which are then fixed. Then a
    second reference is fitted, a mixture of the given one and of a normal for each mode (`FittedReference`), and
    populations start from both. The result is the run from the fitted one, unless the other agrees, gives more draws
    and a smaller error of log Z; the other one is its `control`.

    Under `jax.set_mesh` with axes `temp` and `data`, rungs lie along `temp` and populations along `data`; draws are the
    same on any number of devices. Programs are kept: a second call with the same functions and other data in `args`
    compiles little, and nothing if it finds as many modes and rungs. Inside jit use `tempered_posterior` or
    `tempered_kernel` instead.

    Args:
      log_prior: maps one position to a scalar in nats; or a density with `sample` and `log_prob`, which is also the
        default reference; or None, which is 0.
      log_likelihood: maps one position to a scalar in nats.
      z0: one position, any pytree of floats, where chains start, but for those of lower rungs, which start at draws of
        the reference; with num_chains=None a batch of positions, one per population. None takes all starts from the
        reference.
      args: data, which functions (not priors with `log_prob`) take after the position.
      reference: a density with `sample` and `log_prob`, such as `NormalReference`; its draws refresh the first rung.
      fits_reference: whether a second reference is fitted. It needs a reference and at most 256 coordinates.
      num_chains: C, independent populations.
      num_rounds: the number of rounds that count, or a stopping rule `Until`.
      warmup_rounds: rounds before those that count; half as many for the fitted reference.
      num_temperatures: T. None takes 16 (6 from the fitted reference), and more if the measured barrier needs more.
      kernel: an object such as `kaem_jax.mcmc.HMC(10)`, or its registered name; one with an accept step.
      steps_per_round: moves between exchanges.
      step_spread: standard deviation of the log step size of a move around that of its rung. Larger values, and `HMC`,
        suit densities of varying width, such as funnels; 0 is better by up to a fifth for others.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.
      max_bytes: limit on the size of the draws; more are thinned.
      report: called with the run so far at each check, for instance `print`.

    Raises:
      ValueError: an argument does not fit, a log-density of one position is not a scalar, or no draw of the reference
        lies in the support of the target.
    """
    if isinstance(key, jax.core.Tracer):
        raise ValueError("tempered loops on the host: inside jit use tempered_posterior or tempered_kernel")
    check_key(key)
    kernel = make_kernel(kernel)
    if not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so that draws and log Z are biased; take MALA()")
    check_choice("swap", swap, SWAPS)
    check_integer("warmup_rounds", warmup_rounds, low=1)
    check_integer("num_temperatures", 2 if num_temperatures is None else num_temperatures, low=2)
    from_prior = reference is None
    if reference is None and hasattr(log_prior, "sample"):
        reference = cast(Reference, log_prior)
    if not callable(log_likelihood):
        raise ValueError("log_likelihood is no function: the order is key, log_prior (or None), log_likelihood, z0")
    if reference is None and log_prior is None:
        raise ValueError("log_prior=None leaves the first rung without a density: give a reference, too")
    key_start, key_run, key_fit = jax.random.split(key, 3)
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
    rows = Rows.of(starts)
    target = Target(rows, held(log_prior), held(log_likelihood), held(reference), held(args), from_prior)
    target.check()
    first = num_rounds.first_rounds if isinstance(num_rounds, Until) else num_rounds
    check_integer("num_rounds", first, low=8)
    until = num_rounds if isinstance(num_rounds, Until) else Until(max_rounds=first)
    population = Population(target, Rules(kernel, steps_per_round, step_spread, swap), max_bytes)
    rungs, grows = num_temperatures or _RUNGS, num_temperatures is None
    run, seen = population.warmed(key_run, np.asarray(rows.flat(starts)), warmup_rounds, rungs, grows, until)
    if fits_reference and reference is not None and rows.size <= _MOST_COORDINATES:
        rungs = num_temperatures or _FITTED_RUNGS
        fitted = _fitted(key_fit, population, seen, warmup_rounds // 2 or 1, rungs, grows, until)
        run = run if fitted is None else dataclasses.replace(fitted, control=run)
    run, was_done = run.more(first), False
    while True:
        if report is not None:
            report(run)
        rounds, is_done = len(run.trace.log_likelihood), run.is_done
        more = rounds // _CONFIRMATION if is_done else rounds
        if rounds + more > until.max_rounds or (is_done and was_done):
            return run
        run, was_done = run.more(more), is_done


def _fitted(
    key: Array, population: Population, seen: np.ndarray, num_rounds: int, rungs: int, grows: bool, until: Until
) -> TemperedRun | None:
    """A tuned run from a reference that is fitted to draws [R, C, D]; None if there is no mode."""
    wide, key_wide = population.target, jax.random.fold_in(key, 1)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_wide)).ravel())
    modes = find_modes(wide, seen.reshape(-1, seen.shape[-1]), wide.host_draws(key_wide, _NUM_REFERENCE), rng)
    if not len(modes.position):
        return None
    draws = _thinned(seen)
    for i, length in enumerate((max(1, num_rounds // _FIRST_FIT), num_rounds)):
        reference = fit_reference(wide.reference, wide.rows, modes, draws)
        target = dataclasses.replace(wide, reference=held(reference), from_prior=False)
        key_start, key_run = jax.random.split(jax.random.fold_in(key, 2 + i))
        fitted = dataclasses.replace(population, target=target)
        starts = target.host_draws(key_start, seen.shape[1])
        run, found = fitted.warmed(key_run, starts, length, rungs, grows, until)
        draws, rungs = np.concatenate([draws, _thinned(found)]), len(run.betas)
    return run


def _thinned(draws: np.ndarray) -> np.ndarray:
    """Positions [N, D] from draws [R, C, D], whose neighbours in time tell a covariance little that is new."""
    return draws[::_THINNED].reshape(-1, draws.shape[-1])
