"""Tempered populations: chains on power posteriors p(x|z)^beta p(z) that exchange rungs."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from kaem_jax.devices.transforms import scan
from kaem_jax.mcmc.diagnostics import DrawWarning, split_r_hat, warn_if
from kaem_jax.mcmc.kernels import MALA, Bounds, Kernel, LogDensity, make_kernel
from kaem_jax.mcmc.ladder import adapted_ladder, communication_barrier, power_ladder
from kaem_jax.mcmc.langevin import adapt_step_size, check_chain_arguments, check_frame, check_start
from kaem_jax.mcmc.preconditioner import Frame, from_frame, to_frame
from kaem_jax.mcmc.rounds import SWAPS, Refresh, RoundInfo, TemperedState, init, rung_order, step_round, top_of
from kaem_jax.settings.arguments import check_choice

__all__ = ["TemperedInfo", "TemperedPosterior", "tempered", "tempered_posterior"]

_NUM_TEMPERATURES = 10
_START_EXPONENT = 3.0  # start of a tuned ladder: more rungs near the prior, where log-likelihoods change fastest
_NUM_STAGES = 4  # stages of a warm-up that tunes a ladder


class TemperedInfo(NamedTuple):
    """Diagnostics of a run, after warm-up.

    Attributes:
      swap_acceptance: [T-1] means over rounds and data.
      acceptance: [T] mean acceptance probability of the moves, by rung.
      round_trips: int32 [B], number of round trips of all replicas of a datum.
      log_likelihood: [R, T, B] nats, by round and rung: the trace that gives autocorrelations and evidence.
      r_hat: [B] split R-hat of the last rung's log-likelihood; NaN for fewer than 4 rounds.
      barrier: Lambda, the communication barrier of the ladder; about 2 Lambda rungs are best. A pair adds 1 at most, so
        that where exchanges are rare it is too low: take more rungs and look again.
    """

    swap_acceptance: Array
    acceptance: Array
    round_trips: Array
    log_likelihood: Array
    r_hat: Array
    barrier: Array


class TemperedPosterior(NamedTuple):
    """The end of the chains in the order of rungs: `z[-1]` are posterior draws.

    Attributes:
      z: [T, B, *event].
      top: [B, *event], equal to `z[-1]`, but cheaper where rungs are on several devices and no others are used.
      log_likelihood: [T, B] nats, untempered.
      info: diagnostics.
      betas: [T] as used after warm-up.
      step_size: [T] as used after warm-up.
      heading: int32 [T, B], whether the chain on each rung last visited the first rung (-1), after that the last one
        (1), or has not been on the first one yet (0).
      warning: int32 [B], 0 or a sum of `DrawWarning` flags; `explain_warning` says what they mean.
    """

    z: Array
    top: Array
    log_likelihood: Array
    info: TemperedInfo
    betas: Array
    step_size: Array
    heading: Array
    warning: Array


def tempered_posterior(
    key: Array,
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z0: Array,
    betas: Array | None = None,
    *,
    kernel: Kernel | str = MALA(),
    num_rounds: int,
    steps_per_round: int = 1,
    step_size: Array | float | None = None,
    swap: str = "even_odd",
    bounds: Bounds = None,
    refresh: Refresh | None = None,
    warmup_rounds: int | None = None,
    num_temperatures: int | None = None,
    first_round: Array | int = 0,
    heading: Array | None = None,
    frame: Frame | None = None,
) -> TemperedPosterior:
    """Runs a population of T chains for each datum, `warmup_rounds` and then `num_rounds` rounds; see `step_round`.

    With the defaults the warm-up tunes step sizes and ladder: step sizes move towards an acceptance of 0.574, and the
    ladder towards equal increments of the communication barrier, in four stages of doubling length.

    Args:
      key: a PRNG key.
      log_prior, log_likelihood: positions [..., B, *event] to nats [..., B], one value for each chain.
      z0: [B, *event], from which all replicas start, or [T, B, *event].
      betas: [T], increasing, 1 at the end; T = 1 is plain Langevin. None tunes a ladder of `num_temperatures`.
      kernel: an object such as `kaem_jax.mcmc.MALA()`, or its registered name.
      num_rounds: R, the rounds that count.
      steps_per_round: moves between exchanges.
      step_size: eta > 0, a scalar or [T], by rung; None starts at `kernel.first_step_size`.
      swap: one of `SWAPS`.
      bounds: (low, high), the support of every coordinate; None is the real line.
      refresh: maps (key, (B,)) to exact prior draws [B, *event]: the rung at beta = 0 then takes one in every step.
      warmup_rounds: rounds before those that count. By default 0 if both step size and ladder are given, otherwise
        `num_rounds`. A ladder that is given does not change; step sizes adapt if the kernel has an accept step.
      num_temperatures: T of the tuned ladder, 10 by default; `info.barrier` shows afterwards how many are needed.
      first_round: number of the first round; its parity decides which pairs exchange first. If a population continues
        from an earlier call, give the number of rounds that it has done.
      heading: [T, B] of that earlier call, so that round trips are counted across calls.
      frame: of `kaem_jax.mcmc.principal_frame`: chains move in its coordinates, in units that suit their rung.

    Raises:
      ValueError: `kernel` or `swap` is unknown, sizes do not fit, or a kernel that accepts every move is asked to
        adapt.
    """
    kernel, z0 = make_kernel(kernel), check_start(z0, log_prior, log_likelihood)
    check_chain_arguments(kernel, step_size, bounds)
    check_choice("swap", swap, SWAPS)
    if step_size is None and not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so there is nothing to adapt to: give step_size")
    tunes_ladder = betas is None
    warmup_rounds = _length_of_warmup(warmup_rounds, num_rounds, kernel, tunes_ladder, adapts=step_size is None)
    ladder = jnp.asarray(_first_ladder(betas, num_temperatures), z0.dtype)
    if ladder.ndim != 1 or min(ladder.size, num_rounds, steps_per_round) < 1:
        raise ValueError(
            f"betas of shape {ladder.shape}, num_rounds={num_rounds} and steps_per_round={steps_per_round}: the ladder "
            "must be [T], and T and both numbers at least 1"
        )
    if frame is not None:
        check_frame(kernel, bounds)
        event_shape = z0.shape[jax.eval_shape(log_likelihood, z0).ndim :]
        z_of = functools.partial(from_frame, frame, event_shape=event_shape)
        log_prior, log_likelihood = _composed(log_prior, z_of), _composed(log_likelihood, z_of)
        z0, bounds = to_frame(frame, z0, len(event_shape)), None
        refresh = None if refresh is None else _refresh_in_frame(frame, refresh, len(event_shape))
    state = init(z0, log_prior, log_likelihood, ladder.size, heading)
    start = kernel.first_step_size if step_size is None else step_size
    eta = jnp.broadcast_to(jnp.asarray(start, z0.dtype), ladder.shape)

    def one_round(key: Array, state: TemperedState, index: Array, betas: Array, eta: Array):
        return step_round(
            key, state, log_prior, log_likelihood, betas, eta, index,
            kernel=kernel, num_steps=steps_per_round, swap=swap, bounds=bounds, refresh=refresh,
            curvature=None if frame is None else frame.curvature,
        )  # fmt: skip

    def run(state, inputs):
        index, key = inputs
        return one_round(key, state, index, ladder, eta)

    keys = jax.random.split(key, warmup_rounds + num_rounds)
    rounds = first_round + jnp.arange(warmup_rounds + num_rounds)
    if warmup_rounds:
        state, ladder, eta = _warm_up(
            one_round, state, ladder, eta, rounds[:warmup_rounds], keys[:warmup_rounds],
            kernel=kernel, tunes_ladder=tunes_ladder, is_refreshed=refresh is not None,
        )  # fmt: skip
    state, infos = scan(run, state, (rounds[warmup_rounds:], keys[warmup_rounds:]))
    info = _summary(infos)
    z, top = (order(state.rung, state.replicas.position) for order in (rung_order, top_of))
    return TemperedPosterior(
        z=z if frame is None else z_of(z),
        top=top if frame is None else z_of(top),
        log_likelihood=rung_order(state.rung, state.replicas.log_likelihood),
        info=info,
        betas=ladder,
        step_size=eta,
        heading=rung_order(state.rung, state.heading),
        warning=_warnings(info, infos),
    )


def tempered(
    key: Array,
    log_prior: Callable[[Any], Array],
    log_likelihood: Callable[[Any], Array],
    z0: Any,
    *,
    num_chains: int = 4,
    num_rounds: int = 500,
    **options: Any,
) -> TemperedPosterior:
    """`tempered_posterior` for any two log-densities of one position, which may be any pytree.

        chains = kaem.mcmc.tempered(key, log_prior, log_likelihood, {"mean": jnp.zeros(3), "scale": jnp.ones(())})

    Args:
      key: a PRNG key.
      log_prior, log_likelihood: one position, as `z0`, to a scalar in nats.
      z0: the position from which all chains start.
      num_chains: B, independent populations.
      num_rounds: R, the rounds that count, after as many of warm-up.
      **options: see `tempered_posterior`.

    Returns:
      As `tempered_posterior`, with leaves [T, B, ...] of `z` and [B, ...] of `top` in the place of arrays.
    """
    flat, unravel = ravel_pytree(z0)

    def of_chains(log_density: Callable[[Any], Array]) -> LogDensity:
        return jnp.vectorize(lambda z: log_density(unravel(z)), signature="(d)->()")

    starts = jnp.broadcast_to(flat, (num_chains, flat.size))
    log_densities = of_chains(log_prior), of_chains(log_likelihood)
    found = tempered_posterior(key, *log_densities, starts, num_rounds=num_rounds, **options)
    return found._replace(z=jax.vmap(jax.vmap(unravel))(found.z), top=jax.vmap(unravel)(found.top))


def _length_of_warmup(given: int | None, num_rounds: int, kernel: Kernel, tunes_ladder: bool, adapts: bool) -> int:
    """The rounds of the warm-up, `given` or as many as `tempered_posterior` says."""
    if given is None:
        return num_rounds if tunes_ladder or adapts else 0
    if given < 0:
        raise ValueError(f"warmup_rounds={given} must be at least 0")
    if given and not kernel.is_exact and not tunes_ladder:
        raise ValueError(f"warmup_rounds={given} has nothing to adapt: kernel={kernel!r} accepts every move")
    return given


def _first_ladder(betas: Array | None, num_temperatures: int | None) -> Array:
    """The ladder that was given, or where a ladder that is tuned starts."""
    if betas is None:
        return power_ladder(_NUM_TEMPERATURES if num_temperatures is None else num_temperatures, _START_EXPONENT)
    if num_temperatures is not None:
        raise ValueError(
            f"num_temperatures={num_temperatures} is for a ladder that is tuned, and betas gives one: leave one out"
        )
    _check_ladder(betas)
    return betas


def _warm_up(
    one_round: Callable[..., tuple[TemperedState, RoundInfo]],
    state: TemperedState,
    betas: Array,
    eta: Array,
    rounds: Array,
    keys: Array,
    *,
    kernel: Kernel,
    tunes_ladder: bool,
    is_refreshed: bool,
) -> tuple[TemperedState, Array, Array]:
    """State, ladder and step sizes after the rounds of the warm-up."""

    def warm(carry, inputs):
        state, betas, eta, swaps = carry
        index, key, count, stage_ends = inputs
        state, info = one_round(key, state, index, betas, eta)
        if kernel.is_exact:
            adapted = adapt_step_size(eta[:, None], info.acceptance, count)[:, 0]
            has_no_moves = is_refreshed & (betas == 0)  # exact draws have nothing to adapt
            eta = jnp.where(has_no_moves, eta, jnp.minimum(adapted, kernel.largest_step_size))
        if tunes_ladder:
            swaps = swaps + jnp.mean(info.swap_acceptance, axis=1)
            tuned = adapted_ladder(betas, swaps / count.astype(swaps.dtype), damping=1.0)
            betas, swaps = jnp.where(stage_ends, tuned, betas), jnp.where(stage_ends, 0, swaps)
        return (state, betas, eta, swaps), None

    swaps = jnp.zeros(betas.size - 1, betas.dtype)
    inputs = (rounds, keys, *_stages(len(rounds), tunes_ladder))
    (state, betas, eta, _), _ = scan(warm, (state, betas, eta, swaps), inputs)
    return state, betas, eta


def _summary(infos: RoundInfo) -> TemperedInfo:
    """Diagnostics of all rounds [R, ...] together."""
    swap_acceptance = jnp.mean(infos.swap_acceptance, axis=(0, 2))
    return TemperedInfo(
        swap_acceptance=swap_acceptance,
        acceptance=jnp.mean(infos.acceptance, axis=(0, 2)),
        round_trips=jnp.sum(infos.round_trips, axis=0),
        log_likelihood=infos.log_likelihood,
        r_hat=split_r_hat(infos.log_likelihood[:, -1]),
        barrier=communication_barrier(swap_acceptance)[-1],
    )


def _warnings(info: TemperedInfo, infos: RoundInfo) -> Array:
    """`DrawWarning` flags of each datum, int32 [B]."""
    moved = jnp.mean(infos.acceptance[:, -1], axis=0)  # on the last rung
    conditions = {DrawWarning.R_HAT: ~(info.r_hat < 1.1), DrawWarning.REJECTED: moved < 0.1}
    if info.acceptance.size > 1:
        conditions[DrawWarning.NO_ROUND_TRIPS] = info.round_trips == 0
    return warn_if(conditions)


def _composed(log_density: LogDensity, z_of: Callable[[Array], Array]) -> LogDensity:
    return lambda y: log_density(z_of(y))


def _refresh_in_frame(frame: Frame, refresh: Refresh, event_ndim: int) -> Refresh:
    return lambda key, shape: to_frame(frame, refresh(key, shape), event_ndim)


def _check_ladder(betas: Array) -> None:
    """Refuses a ladder that is not one, where its values can be seen."""
    if isinstance(betas, jax.core.Tracer):
        return
    values = np.asarray(betas, float)
    if values.ndim == 1 and values.size and not (np.all(np.diff(values) > 0) and values[0] >= 0 and values[-1] == 1):
        raise ValueError(f"betas={values.tolist()} must increase, from 0 or above to 1")


def _stages(num_rounds: int, doubling: bool) -> tuple[Array, Array]:
    """For each round of the warm-up: its number in its stage, from 1, and whether it is the last of its stage.

    Stages double in length, so that each ladder is judged by more rounds than the last. Without `doubling` there is one
    stage.
    """
    num = min(_NUM_STAGES, int(math.log2(num_rounds + 1))) if doubling else 1
    ends = [round(num_rounds * (2 ** (i + 1) - 1) / (2**num - 1)) for i in range(num)]
    lengths = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    count = jnp.concatenate([jnp.arange(1, length + 1) for length in lengths])
    return count, jnp.concatenate([jnp.arange(1, length + 1) == length for length in lengths])
