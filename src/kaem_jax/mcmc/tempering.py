"""Tempered populations as a pure function: chains on power posteriors p(x|z)^beta p(z) that exchange rungs."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.transforms import scan
from kaem_jax.mcmc.diagnostics import DrawWarning, split_r_hat, warn_if
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE, MALA, Bounds, Kernel, LogDensity, make_kernel
from kaem_jax.mcmc.ladder import communication_barrier
from kaem_jax.mcmc.langevin import adapt_step_size, check_chain_arguments, check_start
from kaem_jax.mcmc.preconditioner import Frame, from_frame, to_frame
from kaem_jax.mcmc.rounds import SWAPS, Refresh, RoundInfo, init, rung_order, step_round, top_of
from kaem_jax.settings.arguments import check_choice, check_integer


class TemperedInfo(NamedTuple):
    """Diagnostics after warm-up.

    Attributes:
      swap_acceptance: [T-1] mean exchange probability of neighbours, over rounds and data.
      acceptance: [T] mean acceptance probability of moves, by rung.
      round_trips: int32 [B], round trips of all replicas of a datum.
      log_likelihood: [R, T, B] nats, by round and rung.
      r_hat: [B] split R-hat of the last rung's log-likelihood; NaN for fewer than 4 rounds.
      barrier: Lambda, the communication barrier; about 2 Lambda rungs are best. Rare swaps make it an underestimate.
    """

    swap_acceptance: Array
    acceptance: Array
    round_trips: Array
    log_likelihood: Array
    r_hat: Array
    barrier: Array


class TemperedPosterior(NamedTuple):
    """The ends of the chains in the order of rungs: `z[-1]` are posterior draws.

    Attributes:
      z: [T, B, *event].
      top: [B, *event], equal to `z[-1]`, but cheaper if rungs are spread over devices.
      log_likelihood: [T, B] nats, untempered.
      info: diagnostics.
      step_size: [T] after warm-up.
      heading: int32 [T, B], of the chain on each rung; see `kaem_jax.mcmc.rounds.TemperedState`.
      warning: int32 [B], a sum of `DrawWarning` flags; see `explain_warning`.
    """

    z: Array
    top: Array
    log_likelihood: Array
    info: TemperedInfo
    step_size: Array
    heading: Array
    warning: Array


def tempered_posterior(
    key: Array,
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z0: Array,
    betas: Array,
    *,
    kernel: Kernel | str = MALA(),
    num_rounds: int,
    steps_per_round: int = 1,
    step_size: Array | float | None = None,
    swap: str = "even_odd",
    bounds: Bounds = None,
    refresh: Refresh | None = None,
    warmup_rounds: int | None = None,
    first_round: Array | int = 0,
    heading: Array | None = None,
    frame: Frame | None = None,
) -> TemperedPosterior:
    """Runs T chains for each datum, `warmup_rounds` and then `num_rounds` rounds of moves and exchanges.

    A pure function, to be used in other programs. `tempered` also tunes the ladder and runs to a requested precision.

    Args:
      log_prior, log_likelihood: positions [..., B, *event] to nats [..., B], one value per chain.
      z0: [B, *event], where all replicas start, or [T, B, *event].
      betas: [T], increasing to 1, such as a `power_ladder`; T = 1 is plain Langevin.
      kernel: an object such as `kaem_jax.mcmc.MALA()`, or its registered name.
      num_rounds: R, the rounds that count.
      steps_per_round: moves between exchanges.
      step_size: eta > 0, a scalar or [T], by rung; None starts at 0.1.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`; see `exchange` there.
      bounds: (low, high), the support of every coordinate; None is the real line.
      refresh: maps (key, (B,)) to exact prior draws [B, *event], which the rung at beta = 0 then takes in every step.
      warmup_rounds: rounds in which step sizes adapt. By default 0 if step sizes are given, otherwise `num_rounds`.
      first_round: number of the first round, whose parity decides which pairs swap first. To continue an earlier call,
        give the number of rounds done.
      heading: [T, B], from that earlier call, to count round trips across calls.
      frame: from `kaem_jax.mcmc.preconditioner.principal_frame`: the coordinates of moves, in units that suit their
        rung.

    Raises:
      ValueError: `kernel` or `swap` is unknown, sizes do not fit, or a kernel without accept step would adapt.

    Example:
      >>> found = kaem.mcmc.tempered_posterior(
      ...     key, lambda z: -jnp.sum(z**2, -1) / 2, lambda z: -jnp.sum((z - 3) ** 2, -1), jnp.zeros((5, 2)),
      ...     jnp.linspace(0, 1, 4), num_rounds=10, steps_per_round=2, step_size=0.3,
      ... )
    """
    kernel, z0 = make_kernel(kernel), check_start(z0, log_prior, log_likelihood)
    check_chain_arguments(step_size, bounds, frame)
    check_choice("swap", swap, SWAPS)
    if step_size is None and not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so there is nothing to adapt to: give step_size")
    if warmup_rounds is None:
        warmup_rounds = num_rounds if step_size is None else 0
    check_integer("warmup_rounds", warmup_rounds, low=0)
    if warmup_rounds and not kernel.is_exact:
        raise ValueError(f"warmup_rounds={warmup_rounds} has nothing to adapt: kernel={kernel!r} accepts every move")
    check_integer("num_rounds", num_rounds, low=1)
    check_integer("steps_per_round", steps_per_round, low=1)
    if not isinstance(betas, jax.core.Tracer):
        values = np.asarray(betas, float)
        if values.ndim != 1 or not (np.all(np.diff(values) > 0) and values[0] >= 0 and values[-1] == 1):
            raise ValueError(f"betas={values.tolist()} must be [T], and increase from 0 or above to 1")
    ladder = jnp.asarray(betas, z0.dtype)
    if frame is not None:
        event_shape = z0.shape[jax.eval_shape(log_likelihood, z0).ndim :]
        z_of = functools.partial(from_frame, frame, event_shape=event_shape)
        y_of = functools.partial(to_frame, frame, event_ndim=len(event_shape))
        log_prior, log_likelihood = _then(z_of, log_prior), _then(z_of, log_likelihood)
        z0, refresh = y_of(z0), None if refresh is None else _then(refresh, y_of)
    state = init(z0, log_prior, log_likelihood, ladder.size, heading)
    start = FIRST_STEP_SIZE if step_size is None else step_size
    eta = jnp.broadcast_to(jnp.asarray(start, z0.dtype), ladder.shape)

    one_round = functools.partial(
        step_round, log_prior=log_prior, log_likelihood=log_likelihood, betas=ladder, kernel=kernel,
        num_steps=steps_per_round, swap=swap, bounds=bounds, refresh=refresh,
        scale=None if frame is None else (1 + ladder[:, None] * frame.curvature) ** -0.5,
    )  # fmt: skip

    def warm(carry, inputs):
        state, eta = carry
        index, key, count = inputs
        state, info = one_round(key, state, step_size=eta, index=index)
        return (state, adapted_steps(kernel, eta, info.acceptance, count, (refresh is not None) & (ladder == 0))), None

    def run(state, inputs):
        index, key = inputs
        return one_round(key, state, step_size=eta, index=index)

    keys = jax.random.split(key, warmup_rounds + num_rounds)
    rounds = first_round + jnp.arange(warmup_rounds + num_rounds)
    if warmup_rounds:
        inputs = (rounds[:warmup_rounds], keys[:warmup_rounds], jnp.arange(1, warmup_rounds + 1))
        (state, eta), _ = scan(warm, (state, eta), inputs)
    state, infos = scan(run, state, (rounds[warmup_rounds:], keys[warmup_rounds:]))
    info = _summary(infos)
    z, top = (order(state.rung, state.replicas.position) for order in (rung_order, top_of))
    return TemperedPosterior(
        z=z if frame is None else z_of(z),
        top=top if frame is None else z_of(top),
        log_likelihood=rung_order(state.rung, state.replicas.log_likelihood),
        info=info,
        step_size=eta,
        heading=rung_order(state.rung, state.heading),
        warning=_warnings(info, infos),
    )


def adapted_steps(kernel: Kernel, step_size: Array, acceptance: Array, count: Array, is_exact: Array) -> Array:
    """Step sizes [T] after the `count`-th round with acceptance [T, B]; rungs with exact draws keep theirs."""
    adapted = adapt_step_size(kernel, step_size[:, None], acceptance, count)[:, 0]
    return jnp.where(is_exact, step_size, adapted)


def _summary(infos: RoundInfo) -> TemperedInfo:
    swap_acceptance = jnp.mean(infos.swap_acceptance, axis=(0, 2))
    return TemperedInfo(
        swap_acceptance=swap_acceptance, acceptance=jnp.mean(infos.acceptance, axis=(0, 2)),
        round_trips=jnp.sum(infos.round_trips, axis=0), log_likelihood=infos.log_likelihood,
        r_hat=split_r_hat(infos.log_likelihood[:, -1]), barrier=communication_barrier(swap_acceptance)[-1],
    )  # fmt: skip


def _warnings(info: TemperedInfo, infos: RoundInfo) -> Array:
    moved = jnp.mean(infos.acceptance[:, -1], axis=0)  # on the last rung
    conditions = {DrawWarning.R_HAT: ~(info.r_hat < 1.1), DrawWarning.REJECTED: moved < 0.1}
    if info.acceptance.size > 1:
        conditions[DrawWarning.NO_ROUND_TRIPS] = info.round_trips == 0
    return warn_if(conditions)


def _then(first: Callable[..., Array], second: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda *args: second(first(*args))
