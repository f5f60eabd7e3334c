"""Populations of tempered chains: warm-up and rounds, as host loops around one compiled program."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE, Kernel
from kaem_jax.mcmc.ladder import communication_barrier, even_ladder, power_ladder
from kaem_jax.mcmc.rounds import RoundInfo, TemperedState, init, rung_order, step_round, top_of
from kaem_jax.mcmc.target import Target, released
from kaem_jax.mcmc.tempered_run import RunState, TemperedRun, Tuning, Until
from kaem_jax.mcmc.tempering import adapted_steps

_EXPONENT = 3.0  # of the first ladder: more rungs where log-likelihoods change fastest
_MAX_TEMPERATURES, _RUNG_STEP = 128, 8
_SNAPSHOT = 16  # rounds of a warm-up between positions that tell the units of coordinates
_NUM_REFERENCE = 256  # draws of the reference that give the first units of coordinates
_PRIOR_DRAWS = 3  # for how many draws the units of the stage before count
_CHUNK = 256  # rounds a call of the compiled program, fewer where draws are large
_CHUNK_FLOATS = 2**24


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a round does; static. See `tempered`."""

    kernel: Kernel
    steps_per_round: int
    step_spread: float
    swap: str


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """C populations of chains between a reference and a target.

    Attributes:
      target: both densities.
      rules: what a round does.
      max_bytes: limit on the size of the draws that are kept.
    """

    target: Target
    rules: Rules
    max_bytes: int

    def warmed(
        self, key: Array, starts: np.ndarray, num_rounds: int, first_rungs: int, grows: bool, until: Until
    ) -> tuple[TemperedRun, np.ndarray]:
        """A tuned run from positions [C, D], without counted rounds; draws [R, C, D] of the last two stages.

        Warm-up has stages of doubling length. Between them the ladder, which may grow if `grows`, step sizes and units
        of coordinates follow what was seen. Rungs in the lower half start at draws of the reference.
        """
        target = self.target
        key_scale, key = jax.random.split(key)
        scale, first = np.ones(starts.shape[1:], starts.dtype), np.tile(starts, (first_rungs, 1, 1))
        if target.reference is not None:
            drawn = target.host_draws(key_scale, max(_NUM_REFERENCE, first_rungs // 2 * len(starts)))
            if not np.isfinite(np.asarray(_log_gain(target, drawn))).any():
                raise ValueError(
                    "no draw of the reference has a finite log-density under the target: give a reference inside its "
                    "support"
                )
            scale = np.std(drawn, axis=0)
            first[: first_rungs // 2] = drawn[: first_rungs // 2 * len(starts)].reshape(-1, *starts.shape)
        tuning = Tuning(
            np.asarray(power_ladder(first_rungs, _EXPONENT), starts.dtype),
            np.full(first_rungs, FIRST_STEP_SIZE, starts.dtype),
            np.tile(scale, (first_rungs, 1)),
        )
        state, tops = RunState(key, 0, _begin(target, first), tuning), list[np.ndarray]()
        lengths = _stages(num_rounds)
        for stage, length in enumerate(lengths, start=1):
            is_last = stage == len(lengths)
            swaps, positions, top = [], [], []
            for done in range(0, length, _SNAPSHOT):
                state, kept = self._rounds(state, min(_SNAPSHOT, length - done), count=done + 1)
                if not np.isfinite(kept.trace.log_likelihood).any():
                    raise ValueError("the log-densities are no number at any position from z0 on: give another z0")
                swaps.append(kept.trace.swap_acceptance)
                positions.append(kept.by_rung)
                top.append(kept.top)
            tops = [*tops[-1:], np.concatenate(top)]
            state = self._tuned(
                state, np.concatenate(swaps).mean(axis=0, dtype=np.float64), np.stack(positions),
                grows=grows and not is_last, rescales=not is_last,
            )  # fmt: skip
        trace = jax.tree.map(lambda values: values[:0], kept.trace)
        nothing = target.rows.tree(np.zeros((len(starts), 0, target.rows.size), starts.dtype))
        reference = released(target.reference)
        return TemperedRun(nothing, trace, 1, until, state, self.extend, reference), np.concatenate(tops)

    def extend(self, run: TemperedRun, num_rounds: int) -> TemperedRun:
        state, thin, traces = run.state, run.thin, [run.trace]
        rows = self.target.rows
        draws, first = [np.asarray(rows.flat(run.draws))], len(run.trace.log_likelihood)
        num_kept, last = draws[0].shape[1], first + num_rounds
        limit = max(8, self.max_bytes // (len(draws[0]) * rows.size * draws[0].itemsize))
        while first < last:
            num = min(_chunk_of(len(draws[0]), rows.size), last - first)
            state, kept = self._rounds(state, num)
            traces.append(kept.trace)
            is_kept = np.arange(first + 1, first + num + 1) % thin == 0
            draws.append(np.swapaxes(kept.top[is_kept], 0, 1))
            num_kept += draws[-1].shape[1]
            while num_kept > limit:
                thin, draws = 2 * thin, [np.concatenate(draws, axis=1)[:, 1::2]]
                num_kept = draws[0].shape[1]
            first += num
        trace = jax.tree.map(lambda *parts: np.concatenate(parts), *traces)
        whole = rows.tree(np.concatenate(draws, axis=1))
        return dataclasses.replace(run, draws=whole, trace=trace, thin=thin, state=state)

    def _tuned(
        self, state: RunState, swap_acceptance: np.ndarray, positions: np.ndarray, *, grows: bool, rescales: bool
    ) -> RunState:
        """The next tuning, from swap acceptances [T-1] and positions [S, T, C, D] of a stage."""
        betas, step_size, scale = map(np.asarray, state.tuning)
        if rescales:
            num = positions.shape[0] * positions.shape[2]
            variance = (num * np.var(positions, axis=(0, 2)) + _PRIOR_DRAWS * scale**2) / (num + _PRIOR_DRAWS)
            step_size = step_size * np.exp(np.mean(np.log(scale**2 / variance), axis=1))
            scale = np.sqrt(variance)
        num, wanted = betas.size, math.ceil(2 * communication_barrier(swap_acceptance)[-1]) + 1
        if grows and wanted > num:
            # Each number of rungs is a program of its own: of few numbers, most runs find one that was compiled.
            num = min(_RUNG_STEP * math.ceil(wanted / _RUNG_STEP), _MAX_TEMPERATURES)
        new = even_ladder(betas.astype(np.float64), swap_acceptance, num)
        at = np.clip(np.searchsorted(betas, new) - 1, 0, betas.size - 2)
        share = (new - betas[at]) / (betas[at + 1] - betas[at])

        def between(values: np.ndarray) -> np.ndarray:
            """Values on the new ladder, by interpolation of their logarithms in beta."""
            weight = np.expand_dims(share, tuple(range(1, values.ndim)))
            logs = (1 - weight) * np.log(values[at]) + weight * np.log(values[at + 1])
            return np.exp(logs).astype(betas.dtype)

        tuning = Tuning(new.astype(betas.dtype), between(step_size), between(scale))
        if num == betas.size:
            return state._replace(tuning=tuning)
        nearest = np.where(share < 0.5, at, at + 1)
        return state._replace(tuning=tuning, population=_begin(self.target, positions[-1, nearest]))

    def _rounds(self, state: RunState, num: int, count: int = 0) -> tuple[RunState, "_Kept"]:
        """Runs `num` rounds. With `count` > 0 step sizes adapt, beginning with update number `count`."""
        numbers = (np.int32(value) for value in (state.num_rounds, num, count))
        population, step_size, kept = _advance(
            self.rules, self.target, state.key, *numbers, state.population, state.tuning
        )
        trace = jax.tree.map(lambda values: np.asarray(values)[:num], kept.trace)
        kept = _Kept(trace, np.asarray(kept.top)[:num], np.asarray(kept.by_rung))
        tuning = state.tuning._replace(step_size=np.asarray(step_size))
        return RunState(state.key, state.num_rounds + num, population, tuning), kept


class _Kept(NamedTuple):
    """Results of a chunk of rounds: trace, draws of the last rung [chunk, C, D], last positions by rung [T, C, D]."""

    trace: RoundInfo
    top: Any
    by_rung: Any


def _chunk_of(num_chains: int, size: int) -> int:
    return max(1, min(_CHUNK, _CHUNK_FLOATS // (num_chains * size)))


# Densities are arguments, whose functions are part of the programs' keys: a second call of equal shapes compiles
# nothing.


@jax.jit
def _log_gain(target: Target, z: Array) -> Array:
    return constrain(target.log_gain(z))


@jax.jit
def _begin(target: Target, z: Array) -> TemperedState:
    return init(constrain(z, "temp", "data"), target.log_start, target.log_gain, len(z))


@functools.partial(jax.jit, static_argnums=0)
def _advance(
    rules: Rules, target: Target, key: Array, first: Array, num: Array, count: Array, population: TemperedState,
    tuning: Tuning,
) -> tuple[TemperedState, Array, _Kept]:  # fmt: skip
    """Runs `num` rounds of a population; compiled once per number of rungs."""
    chunk = _chunk_of(population.rung.shape[1], target.rows.size)
    one_round = functools.partial(
        step_round, log_prior=target.log_start, log_likelihood=target.log_gain, kernel=rules.kernel,
        num_steps=rules.steps_per_round, step_spread=rules.step_spread, swap=rules.swap,
    )  # fmt: skip
    key_rounds, key_fresh = jax.random.split(key)
    fresh = None
    if target.reference is not None:  # all at once, and the same wherever a chunk begins
        shape = (rules.steps_per_round, population.rung.shape[1])
        fresh = jax.vmap(lambda i: target.draws(jax.random.fold_in(key_fresh, i), shape))(first + jnp.arange(chunk))
        fresh = constrain(fresh, None, None, "data")

    def one(i: Array, population: TemperedState, step_size: Array) -> tuple[TemperedState, Array, Any]:
        population = jax.tree.map(lambda leaf: constrain(leaf, "temp", "data"), population)
        population, info = one_round(
            jax.random.fold_in(key_rounds, first + i), population, betas=tuning.betas, step_size=step_size,
            index=first + i, scale=tuning.scale, fresh=None if fresh is None else fresh[i],
        )  # fmt: skip
        info = jax.tree.map(constrain, info)  # on every device
        row = info._replace(acceptance=_mean(info.acceptance), swap_acceptance=_mean(info.swap_acceptance))
        is_refreshed = (fresh is not None) & (tuning.betas == 0)
        adapted = adapted_steps(rules.kernel, step_size, row.acceptance[:, None], count + i, is_refreshed)
        top = constrain(top_of(population.rung, population.replicas.position))
        return population, jnp.where(count > 0, adapted, step_size), (row, top)

    start = (population, tuning.step_size)
    rows = jax.eval_shape(lambda *start: one(jnp.int32(0), *start)[2], *start)
    rows = jax.tree.map(lambda row: jnp.zeros((chunk, *row.shape), row.dtype), rows)

    def body(i: Array, carry: Any) -> Any:
        population, step_size, rows = carry
        population, step_size, row = one(i, population, step_size)
        return population, step_size, jax.tree.map(lambda rows, values: rows.at[i].set(values), rows, row)

    population, step_size, (trace, top) = jax.lax.fori_loop(0, num, body, (*start, rows))
    by_rung = rung_order(population.rung, population.replicas.position)
    # What the host reads is replicated on every device, so that each of several processes has it.
    return population, *jax.tree.map(constrain, (step_size, _Kept(trace, top, by_rung)))


def _mean(values: Array) -> Array:
    """Mean over the populations of [K, C], added one by one: the order of a reduction changes with the mesh."""
    return functools.reduce(jnp.add, list(values.T)) / values.shape[1]


def _stages(num_rounds: int) -> list[int]:
    """Lengths of the warm-up's stages, each about twice the one before, so that later ladders have more rounds."""
    num = max(1, int(math.log2(num_rounds / _SNAPSHOT)))  # the first has about one snapshot
    ends = [round(num_rounds * (2**i - 1) / (2**num - 1)) for i in range(num + 1)]
    return np.diff(ends).tolist()
