"""Rounds of a tempered population: moves, then exchanges of rungs (docs/method.md, section 8).

Replicas stay in place, in memory and on their device: exchanges permute rungs, [T, B] integers, never latents.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.jax_utils.transforms import expand_to, scan
from kaem_jax.mcmc import moves
from kaem_jax.mcmc.kernels import Bounds, Kernel, LogDensity

Swap = Literal["even_odd", "none", "random"]
SWAPS = get_args(Swap)
Refresh = Callable[[Array, tuple[int, ...]], Array]


class TemperedState(NamedTuple):
    """What the next round needs.

    Attributes:
      replicas: T chains for each of B data, in an order that never changes.
      rung: int32 [T, B], the rung of each replica; a permutation of 0..T-1 for each datum.
      heading: int32 [T, B], 0 until a replica first visits the first rung; then -1 if its last visit to an end was to
        the first rung, 1 if to the last.
    """

    replicas: moves.Chains
    rung: Array
    heading: Array


class RoundInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      swap_acceptance: [T-1, B] exchange probability of each adjacent pair, proposed or not.
      acceptance: [T, B] mean acceptance probability of the moves, by rung.
      log_likelihood: [T, B] nats, by rung, after the moves.
      round_trips: int32 [B], round trips from the prior to the posterior and back that ended in this round.
    """

    swap_acceptance: Array
    acceptance: Array
    log_likelihood: Array
    round_trips: Array


def init(
    z0: Array, log_prior: LogDensity, log_likelihood: LogDensity, num_temperatures: int, heading: Array | None = None
) -> TemperedState:
    """The first state, with replica r on rung r. z0 is [T, B, *event], or [B, *event] for all replicas alike.

    Raises:
      ValueError: z0 has neither of these shapes.
    """
    axes = jax.eval_shape(log_likelihood, z0).ndim
    if axes == 1:
        z0 = jnp.broadcast_to(z0, (num_temperatures, *z0.shape))
    elif axes != 2 or z0.shape[0] != num_temperatures:
        raise ValueError(f"z0 has shape {z0.shape}; wanted: [B, *event], or [T, B, *event] with T={num_temperatures}")
    replicas = moves.evaluate(z0, log_prior, log_likelihood)
    shape = replicas.log_likelihood.shape
    rung = jnp.broadcast_to(jnp.arange(num_temperatures, dtype=jnp.int32)[:, None], shape)
    start = jnp.zeros(shape, jnp.int32) if heading is None else jnp.asarray(heading, jnp.int32)
    return TemperedState(replicas, rung, next_heading(start, rung))


def exchange(
    key: Array, rung: Array, log_likelihood: Array, betas: Array, index: Array | int, swap: str = "even_odd"
) -> tuple[Array, Array]:
    """Exchanges rungs of adjacent replicas, independently for each datum.

    Replicas on rungs i < j swap with probability min(1, exp((beta_j - beta_i)(l_i - l_j))), and never if that is NaN.
    `even_odd` proposes the pairs (0, 1), (2, 3), ... in even rounds and (1, 2), (3, 4), ... in odd ones
    (non-reversible, Syed et al., 2021). `random` draws one of the two sets for each datum (reversible). `none` proposes
    no pair.

    Args:
      rung, log_likelihood: [T, B], per replica.
      betas: [T].
      index: number of the round, which decides the parity.

    Returns:
      The new rungs [T, B] and the swap probabilities of adjacent pairs [T-1, B].
    """
    num, num_data = rung.shape
    key_accept, key_parity = jax.random.split(key)
    by_rung = rung_order(rung, log_likelihood)
    log_ratio = jnp.diff(betas)[:, None] * (by_rung[:-1] - by_rung[1:])
    probability = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    pair = jnp.arange(num - 1)[:, None]
    num_parities = 2 if num > 2 else 1  # two rungs have one pair, which every round proposes
    if swap == "even_odd":
        proposed = pair % 2 == jnp.asarray(index) % num_parities
    elif swap == "random":
        proposed = pair % 2 == jax.random.randint(key_parity, (num_data,), 0, num_parities)
    else:
        proposed = jnp.zeros((num - 1, 1), bool)
    swapped = proposed & (jax.random.uniform(key_accept, probability.shape, probability.dtype) < probability)
    up, down = (jnp.pad(swapped.astype(jnp.int32), (pad, (0, 0))) for pad in ((0, 1), (1, 0)))
    destination = jnp.arange(num, dtype=jnp.int32)[:, None] + up - down
    return jnp.take_along_axis(destination, rung, axis=0), probability


def step_round(
    key: Array, state: TemperedState, log_prior: LogDensity, log_likelihood: LogDensity, betas: Array,
    step_size: Array, index: Array | int, *, kernel: Kernel, num_steps: int = 1, swap: str = "even_odd",
    bounds: Bounds = None, refresh: Refresh | None = None, scale: Array | None = None, step_spread: float = 0.0,
    fresh: Array | None = None,
) -> tuple[TemperedState, RoundInfo]:  # fmt: skip
    """One round: `num_steps` moves of every replica on its rung's power posterior, then an exchange of rungs.

    Moves come first: fresh starts have the same distribution on all rungs, and would swap too often, however far apart
    the rungs are.

    Args:
      log_prior, log_likelihood: positions [..., B, *event] to nats [..., B]; see `tempered_posterior`.
      betas, step_size: [T].
      index: number of the round.
      scale: [T, *event], unit of each coordinate on each rung; None is 1.
      step_spread: standard deviation of the log step size, drawn anew for each move of each chain: no single step size
        suits a density of varying width.
      fresh: [num_steps, B, *event], draws of the prior in place of `refresh`.
    """
    key_swap, key_moves = jax.random.split(key)
    beta, eta = betas[state.rung], step_size[state.rung]
    unit = None if scale is None else scale[state.rung]

    def move(carry, inputs):
        replicas, total = carry
        key, draws = inputs
        key_move, key_fresh, key_spread = jax.random.split(key, 3)
        if refresh is not None:
            draws = refresh(key_fresh, beta.shape[1:])
        exact = None if draws is None else (beta == 0, draws)
        steps = eta
        if step_spread:
            factor = jnp.exp(step_spread * jax.random.normal(key_spread, eta.shape, eta.dtype))
            steps = eta * factor
        replicas, acceptance = moves.move(
            key_move, replicas, log_prior, log_likelihood, beta, steps, kernel, bounds, exact, unit
        )
        return (replicas, total + acceptance), None

    start = (state.replicas, jnp.zeros_like(state.replicas.log_likelihood))
    (replicas, total), _ = scan(move, start, (jax.random.split(key_moves, num_steps), fresh))
    rung, swap_acceptance = exchange(key_swap, state.rung, replicas.log_likelihood, betas, index, swap)
    heading = next_heading(state.heading, rung)
    returned = (heading == -1) & (state.heading == 1)
    info = RoundInfo(
        swap_acceptance,
        rung_order(state.rung, total / num_steps),
        rung_order(state.rung, replicas.log_likelihood),
        jnp.sum(returned, axis=0, dtype=jnp.int32),
    )
    return TemperedState(replicas, rung, heading), info


def top_of(rung: Array, values: Array) -> Array:
    """The entries [B, ...] of `values` [T, B, ...] on the last rung.

    A masked sum sends [B, ...] numbers between devices; `rung_order` would gather [T, B, ...].
    """
    is_top = expand_to(rung == rung.shape[0] - 1, values.ndim)
    return jnp.sum(jnp.where(is_top, values, 0), axis=0)


def rung_order(rung: Array, values: Array) -> Array:
    """`values` [T, B, ...] of the replicas, sorted by their rungs [T, B]."""
    replica = jnp.broadcast_to(jnp.arange(len(rung), dtype=rung.dtype)[:, None], rung.shape)
    # The inverse of a permutation: `argsort` gives it too, and takes four to fifty times as long.
    holder = jnp.put_along_axis(jnp.zeros_like(rung), rung, replica, axis=0, inplace=False)
    return jnp.take_along_axis(values, expand_to(holder, values.ndim), axis=0)


def next_heading(heading: Array, rung: Array) -> Array:
    """-1 on the first rung, 1 on the last one unless it was 0, otherwise unchanged; see `TemperedState`."""
    last = rung.shape[0] - 1
    if last == 0:
        return heading
    return jnp.where(rung == last, jnp.abs(heading), jnp.where(rung == 0, -1, heading))
