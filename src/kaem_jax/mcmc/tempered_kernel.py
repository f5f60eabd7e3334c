"""One round of tempering as a kernel for anybody's loop, around any move, such as blackjax's."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.mcmc.moves import times_beta
from kaem_jax.mcmc.rounds import SWAPS, exchange, next_heading, rung_order, top_of
from kaem_jax.settings.arguments import check_choice


class SamplingAlgorithm(Protocol):
    """What blackjax's top-level functions return."""

    init: Callable[..., Any]
    step: Callable[..., Any]


class TemperedKernelState(NamedTuple):
    """What the next round needs: positions with leading axes [T, C], rungs and headings int32 [T, C], rounds done."""

    position: Any
    rung: Array
    heading: Array
    num_rounds: Array


class TemperedKernelInfo(NamedTuple):
    """Diagnostics of a round.

    Attributes:
      top: positions of the last rung, with leading axis [C].
      log_likelihood: [T, C] nats, by rung; `bridge_log_z` of all rounds gives log Z.
      swap_acceptance: [T-1, C] exchange probability of each adjacent pair, proposed or not.
      round_trips: int32 [C], round trips that ended in this round.
      move: what the move says, with leading axes [T, C], by replica.
    """

    top: Any
    log_likelihood: Array
    swap_acceptance: Array
    round_trips: Array
    move: Any


class TemperedKernel(NamedTuple):
    """Two pure functions: `init(position) -> state` and `step(key, state) -> (state, info)`."""

    init: Callable[[Any], TemperedKernelState]
    step: Callable[[Array, TemperedKernelState], tuple[TemperedKernelState, TemperedKernelInfo]]


def tempered_kernel(
    log_prior: Callable[[Any], Array],
    log_likelihood: Callable[[Any], Array],
    betas: Array,
    move: Callable[[Callable[[Any], Array], Array], SamplingAlgorithm],
    *,
    swap: str = "even_odd",
) -> TemperedKernel:
    """Non-reversible parallel tempering (Syed et al., 2021) in blackjax's convention.

        kernel = kaem.mcmc.tempered_kernel(
            log_prior, log_likelihood, betas,
            lambda log_density, rung: blackjax.hmc(log_density, steps[rung], jnp.ones(3), 8),
        )
        state = kernel.init(jnp.zeros((16, 4, 3)))
        state, info = jax.lax.scan(lambda state, key: kernel.step(key, state), state, jax.random.split(key, 1000))

    Args:
      log_prior, log_likelihood: map one position, any pytree, to a scalar in nats.
      betas: [T], increasing to 1.
      move: maps the log-density of a rung and its number, int32 [], to a sampling algorithm for one chain.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.

    Returns:
      A kernel whose positions have leading axes [T, C] for C populations; C = 1 is one population.
    """
    check_choice("swap", swap, SWAPS)
    ladder = jnp.asarray(betas)

    def init(position: Any) -> TemperedKernelState:
        shape = jax.tree.leaves(position)[0].shape[:2]
        if shape[0] != ladder.size:
            raise ValueError(f"positions have leading axes {shape}; wanted: [T, C] with T={ladder.size}, one per beta")
        rung = jnp.broadcast_to(jnp.arange(ladder.size, dtype=jnp.int32)[:, None], shape)
        return TemperedKernelState(position, rung, next_heading(jnp.zeros(shape, jnp.int32), rung), jnp.int32(0))

    def moved(key: Array, position: Any, rung: Array) -> tuple[Any, Array, Any]:
        algorithm = move(lambda z: log_prior(z) + times_beta(ladder[rung], log_likelihood(z)), rung)
        state, info = algorithm.step(key, algorithm.init(position))
        return state.position, log_likelihood(state.position), info

    def step(key: Array, state: TemperedKernelState) -> tuple[TemperedKernelState, TemperedKernelInfo]:
        key_moves, key_swap = jax.random.split(key)
        keys = jax.random.split(key_moves, state.rung.shape)
        position, gain, of_move = jax.vmap(jax.vmap(moved))(keys, state.position, state.rung)
        rung, probability = exchange(key_swap, state.rung, gain, ladder, state.num_rounds, swap)
        heading = next_heading(state.heading, rung)
        trips = jnp.sum((heading == -1) & (state.heading == 1), axis=0, dtype=jnp.int32)
        top = jax.tree.map(lambda leaf: top_of(rung, leaf), position)
        info = TemperedKernelInfo(top, rung_order(state.rung, gain), probability, trips, of_move)
        return TemperedKernelState(position, rung, heading, state.num_rounds + 1), info

    return TemperedKernel(init, step)
