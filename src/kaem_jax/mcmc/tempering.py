"""Tempered populations: chains on power posteriors p(x|z)^beta p(z) that exchange rungs (docs/method.md, section 8).

Replicas stay where they are, in memory and on their device: an exchange moves rungs, [T, B] integers, never latents.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.mcmc import power
from kaem_jax.mcmc.diagnostics import DrawWarning, split_r_hat, warn_if
from kaem_jax.mcmc.kernels import MALA, Bounds, Kernel, LogDensity, expand_to, make_kernel
from kaem_jax.mcmc.ladder import adapted_ladder, communication_barrier, power_ladder
from kaem_jax.mcmc.langevin import START_STEP_SIZE, adapt_step_size, check_chain_arguments, check_start
from kaem_jax.parallel import scan

__all__ = [
    "SWAPS",
    "RoundInfo",
    "TemperedInfo",
    "TemperedPosterior",
    "TemperedState",
    "exchange",
    "init",
    "rung_order",
    "step_round",
    "tempered_posterior",
]

SWAPS = ("even_odd", "none", "random")
_START_EXPONENT = 3.0  # start of a tuned ladder: more rungs near the prior, where log-likelihoods change fastest
_NUM_STAGES = 4  # stages of a warm-up that tunes a ladder

Refresh = Callable[[Array, tuple[int, ...]], Array]


class TemperedState(NamedTuple):
    """What the next round needs.

    Attributes:
      replicas: T chains for each of B data, in their own order, which never changes.
      rung: int32 [T, B], where on the ladder each replica is; a permutation of 0..T-1 for each datum.
      heading: int32 [T, B], 1 if it last visited the posterior, -1 if the prior, 0 before either.
    """

    replicas: power.Chains
    rung: Array
    heading: Array


class RoundInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      swap_acceptance: [T-1, B] probability of exchanging each adjacent pair, whether it was proposed or not.
      acceptance: [T, B] mean acceptance probability of the moves, by rung.
      log_likelihood: [T, B] nats, by rung, after the moves.
      round_trips: int32 [B], returns to the prior from the posterior in this round.
    """

    swap_acceptance: Array
    acceptance: Array
    log_likelihood: Array
    round_trips: Array


class TemperedInfo(NamedTuple):
    """Diagnostics of a run, after warm-up.

    Attributes:
      swap_acceptance: [T-1] means over rounds and data.
      acceptance: [T] mean acceptance probability of the moves, by rung.
      round_trips: int32 [B], number of round trips of all replicas of a datum.
      log_likelihood: [R, T, B] nats, by round and rung: the trace that gives autocorrelations and evidence.
      r_hat: [B] split R-hat of the last rung's log-likelihood; NaN for fewer than 4 rounds.
      barrier: Lambda, the communication barrier of the ladder; about 2 Lambda rungs are best.
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
      log_likelihood: [T, B] nats, untempered.
      info: diagnostics.
      betas: [T] as used after warm-up.
      step_size: [T] as used after warm-up.
      warning: int32 [B], 0 or a sum of `DrawWarning` flags; `explain_warning` says what they mean.
    """

    z: Array
    log_likelihood: Array
    info: TemperedInfo
    betas: Array
    step_size: Array
    warning: Array


def init(z0: Array, log_prior: LogDensity, log_likelihood: LogDensity, num_temperatures: int) -> TemperedState:
    """Replica r starts on rung r, at z0 [T, B, *event], or all at z0 [B, *event].

    Raises:
      ValueError: z0 has neither of these shapes.
    """
    axes = jax.eval_shape(log_likelihood, z0).ndim
    if axes == 1:
        z0 = jnp.broadcast_to(z0, (num_temperatures, *z0.shape))
    elif axes != 2 or z0.shape[0] != num_temperatures:
        raise ValueError(f"z0 has shape {z0.shape}; wanted: [B, *event], or [T, B, *event] with T={num_temperatures}")
    replicas = power.evaluate(z0, log_prior, log_likelihood)
    shape = replicas.log_likelihood.shape
    rung = jnp.broadcast_to(jnp.arange(num_temperatures, dtype=jnp.int32)[:, None], shape)
    return TemperedState(replicas, rung, _heading(jnp.zeros(shape, jnp.int32), rung))


def exchange(
    key: Array, rung: Array, log_likelihood: Array, betas: Array, index: Array | int, swap: str = "even_odd"
) -> tuple[Array, Array]:
    """Exchanges rungs of adjacent replicas, for each datum on its own.

    Replicas on rungs i < j change places with probability min(1, exp((beta_j - beta_i)(l_i - l_j))), or never if that
    is not finite. `even_odd` proposes the pairs (0, 1), (2, 3), ... in even rounds and (1, 2), (3, 4), ... in odd
    ones (non-reversible, Syed et al., 2021); `random` proposes one pair for each datum, `none` no pair.

    Args:
      rung, log_likelihood: [T, B], for each replica.
      betas: [T].
      index: number of the swap round, which decides the parity.

    Returns:
      The new rungs [T, B] and the probabilities of all adjacent pairs [T-1, B].
    """
    num, num_data = rung.shape
    key_accept, key_pair = jax.random.split(key)
    by_rung = rung_order(rung, log_likelihood)
    log_ratio = jnp.diff(betas)[:, None] * (by_rung[:-1] - by_rung[1:])
    probability = jnp.where(jnp.isfinite(log_ratio), jnp.exp(jnp.minimum(log_ratio, 0)), 0)
    pair = jnp.arange(num - 1)[:, None]
    if swap == "even_odd":
        proposed = pair % 2 == jnp.asarray(index) % max(1, min(2, num - 1))
    elif swap == "random":
        proposed = pair == jax.random.randint(key_pair, (num_data,), 0, max(1, num - 1))
    else:
        proposed = jnp.zeros((num - 1, 1), bool)
    swapped = proposed & (jax.random.uniform(key_accept, probability.shape, probability.dtype) < probability)
    up, down = (jnp.pad(swapped.astype(jnp.int32), (pad, (0, 0))) for pad in ((0, 1), (1, 0)))
    destination = jnp.arange(num, dtype=jnp.int32)[:, None] + up - down
    return jnp.take_along_axis(destination, rung, axis=0), probability


def step_round(
    key: Array,
    state: TemperedState,
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    betas: Array,
    step_size: Array,
    index: Array | int,
    *,
    kernel: Kernel,
    num_steps: int = 1,
    swap: str = "even_odd",
    bounds: Bounds = None,
    refresh: Refresh | None = None,
) -> tuple[TemperedState, RoundInfo]:
    """One round: an exchange of rungs, then `num_steps` moves of every replica on its rung's power posterior.

    Args:
      log_prior, log_likelihood: positions [..., B, *event] to nats [..., B]; see `tempered_posterior`.
      betas, step_size: [T].
      index: number of the round.
    """
    key_swap, key_moves = jax.random.split(key)
    rung, swap_acceptance = exchange(key_swap, state.rung, state.replicas.log_likelihood, betas, index, swap)
    heading = _heading(state.heading, rung)
    returned = (heading == -1) & (state.heading == 1)
    beta, eta = betas[rung], step_size[rung]

    def move(carry, key):
        replicas, total = carry
        key_move, key_fresh = jax.random.split(key)
        exact = None if refresh is None else (rung == 0, refresh(key_fresh, beta.shape[1:]))
        replicas, acceptance = power.move(
            key_move, replicas, log_prior, log_likelihood, beta, eta, kernel, bounds, exact
        )
        return (replicas, total + acceptance), None

    start = (state.replicas, jnp.zeros_like(state.replicas.log_likelihood))
    (replicas, total), _ = scan(move, start, jax.random.split(key_moves, num_steps))
    info = RoundInfo(
        swap_acceptance,
        rung_order(rung, total / num_steps),
        rung_order(rung, replicas.log_likelihood),
        jnp.sum(returned, axis=0, dtype=jnp.int32),
    )
    return TemperedState(replicas, rung, heading), info


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
    num_temperatures: int = 10,
    first_round: Array | int = 0,
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
      step_size: eta > 0, a scalar or [T], by rung; None starts at 0.1.
      swap: one of `SWAPS`.
      bounds: (low, high), the support of every coordinate; None is the real line.
      refresh: maps (key, (B,)) to exact prior draws [B, *event]: the rung at beta = 0 then takes one in every step.
      warmup_rounds: rounds before those that count. By default 0 if both step size and ladder are given, otherwise
        `num_rounds`. A ladder that is given does not change; step sizes adapt if the kernel has an accept step.
      num_temperatures: T of the tuned ladder; `info.barrier` shows afterwards how many are needed.
      first_round: number of the first round; its parity decides which pairs exchange first. If a population continues
        from an earlier call, give the number of rounds that it has done.

    Raises:
      ValueError: `kernel` or `swap` is unknown, sizes do not fit, or a kernel that accepts every move is asked to
        adapt.
    """
    kernel, z0 = make_kernel(kernel), check_start(z0)
    check_chain_arguments(step_size, bounds)
    if betas is not None:
        _check_ladder(betas)
    if swap not in SWAPS:
        raise ValueError(f"swap={swap!r} is not known; allowed: {', '.join(SWAPS)}")
    if step_size is None and not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so there is nothing to adapt to: give step_size")
    tunes_ladder = betas is None
    if warmup_rounds is not None and warmup_rounds < 0:
        raise ValueError(f"warmup_rounds={warmup_rounds} must be at least 0")
    if warmup_rounds is None:
        warmup_rounds = num_rounds if tunes_ladder or step_size is None else 0
    if warmup_rounds and not kernel.is_exact and not tunes_ladder:
        raise ValueError(f"warmup_rounds={warmup_rounds} has nothing to adapt: kernel={kernel!r} accepts every move")
    start_ladder = power_ladder(num_temperatures, _START_EXPONENT) if betas is None else betas
    ladder = jnp.asarray(start_ladder, z0.dtype)
    if ladder.ndim != 1 or min(ladder.size, num_rounds, steps_per_round) < 1:
        raise ValueError(
            f"betas of shape {ladder.shape}, num_rounds={num_rounds} and steps_per_round={steps_per_round}: the ladder "
            "must be [T], and T and both numbers at least 1"
        )
    state = init(z0, log_prior, log_likelihood, ladder.size)
    start = min(START_STEP_SIZE, kernel.max_step_size / 2) if step_size is None else step_size
    eta = jnp.broadcast_to(jnp.asarray(start, z0.dtype), ladder.shape)

    def one_round(key: Array, state: TemperedState, index: Array, betas: Array, eta: Array):
        return step_round(
            key, state, log_prior, log_likelihood, betas, eta, index,
            kernel=kernel, num_steps=steps_per_round, swap=swap, bounds=bounds, refresh=refresh,
        )  # fmt: skip

    def warm(carry, inputs):
        state, betas, eta, swaps = carry
        index, key, count, stage_ends = inputs
        state, info = one_round(key, state, index, betas, eta)
        if kernel.is_exact:
            adapted = adapt_step_size(eta[:, None], info.acceptance, count)[:, 0]
            eta = jnp.minimum(adapted, 0.95 * kernel.max_step_size)
        if tunes_ladder:
            swaps = swaps + jnp.mean(info.swap_acceptance, axis=1)
            tuned = adapted_ladder(betas, swaps / count.astype(swaps.dtype), damping=1.0)
            betas, swaps = jnp.where(stage_ends, tuned, betas), jnp.where(stage_ends, 0, swaps)
        return (state, betas, eta, swaps), None

    def run(state, inputs):
        index, key = inputs
        return one_round(key, state, index, ladder, eta)

    keys = jax.random.split(key, warmup_rounds + num_rounds)
    rounds = first_round + jnp.arange(warmup_rounds + num_rounds)
    if warmup_rounds:
        swaps = jnp.zeros(ladder.size - 1, ladder.dtype)
        inputs = (rounds[:warmup_rounds], keys[:warmup_rounds], *_stages(warmup_rounds, tunes_ladder))
        (state, ladder, eta, _), _ = scan(warm, (state, ladder, eta, swaps), inputs)
    state, infos = scan(run, state, (rounds[warmup_rounds:], keys[warmup_rounds:]))
    swap_acceptance = jnp.mean(infos.swap_acceptance, axis=(0, 2))
    acceptance = jnp.mean(infos.acceptance, axis=(0, 2))
    round_trips = jnp.sum(infos.round_trips, axis=0)
    r_hat = split_r_hat(infos.log_likelihood[:, -1])
    moved = jnp.mean(infos.acceptance[:, -1], axis=0)  # on the last rung, for each datum
    conditions = {DrawWarning.R_HAT: ~(r_hat < 1.1), DrawWarning.REJECTED: moved < 0.1}
    if ladder.size > 1:
        conditions[DrawWarning.NO_ROUND_TRIPS] = round_trips == 0
    return TemperedPosterior(
        z=rung_order(state.rung, state.replicas.position),
        log_likelihood=rung_order(state.rung, state.replicas.log_likelihood),
        info=TemperedInfo(
            swap_acceptance,
            acceptance,
            round_trips,
            infos.log_likelihood,
            r_hat,
            communication_barrier(swap_acceptance)[-1],
        ),
        betas=ladder,
        step_size=eta,
        warning=warn_if(conditions),
    )


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


def rung_order(rung: Array, values: Array) -> Array:
    """`values` [T, B, ...] of the replicas, sorted by their rungs [T, B]."""
    holder = jnp.argsort(rung, axis=0)
    return jnp.take_along_axis(values, expand_to(holder, values.ndim), axis=0)


def _heading(heading: Array, rung: Array) -> Array:
    """1 on the last rung, -1 on the first, otherwise unchanged; a single rung has no ends."""
    last = rung.shape[0] - 1
    if last == 0:
        return heading
    return jnp.where(rung == last, 1, jnp.where(rung == 0, -1, heading))
