"""Tempering of any density to a requested precision: host loops around one compiled program."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc.kernels import FIRST_STEP_SIZE, MALA, Kernel, make_kernel
from kaem_jax.mcmc.ladder import communication_barrier, even_ladder, power_ladder
from kaem_jax.mcmc.rounds import SWAPS, RoundInfo, TemperedState, init, rung_order, step_round, top_of
from kaem_jax.mcmc.target import LogDensityOfOne, Reference, Rows, Target
from kaem_jax.mcmc.tempered_run import RunState, TemperedRun, Tuning, Until
from kaem_jax.mcmc.tempering import adapted_steps
from kaem_jax.settings.arguments import check_choice, check_integer, check_key

_START = (16, 3.0)  # rungs and exponent of the first ladder: more rungs where log-likelihoods change fastest
_MAX_TEMPERATURES = 128
_SNAPSHOT = 16  # rounds of a warm-up between positions that tell the units of coordinates
_NUM_REFERENCE = 256  # draws of the reference that give the first units of coordinates
_PRIOR_DRAWS = 3  # for how many draws the units of the stage before count
_CHUNK = 256  # rounds a call of the compiled program, fewer where draws are large
_CHUNK_FLOATS = 2**24


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

    Z is the integral of the density over that of the reference, which is 1 if the reference is normalised. Rung beta
    has the density reference^(1 - beta) target^beta; the reference is the prior by default.

    A warm-up of doubling stages tunes step sizes, units of coordinates and the ladder, which are then fixed. Under
    `jax.set_mesh` with axes `temp` and `data`, rungs lie along `temp` and populations along `data`; draws are the same
    on any number of devices. Inside jit use `tempered_posterior` instead.

    Args:
      log_prior: maps one position to a scalar in nats; or a density with `sample` and `log_prob`, which is also the
        default reference; or None, which is 0.
      log_likelihood: maps one position to a scalar in nats.
      z0: one position, any pytree of floats, where all chains start; with num_chains=None a batch of positions, one per
        population. None draws the starts from the reference.
      reference: a density with `sample` and `log_prob`, such as `NormalReference`; its draws refresh the first rung.
      num_chains: C, independent populations.
      num_rounds: the number of rounds that count, or a stopping rule `Until`.
      warmup_rounds: rounds before those that count.
      num_temperatures: T. None takes 16, and more if the measured barrier needs more.
      kernel: an object such as `kaem_jax.mcmc.HMC(10)`, or its registered name; one with an accept step.
      steps_per_round: moves between exchanges.
      step_spread: standard deviation of the log step size of a move around that of its rung. Larger values, and `HMC`,
        suit densities of varying width, such as funnels; 0 is better by up to a fifth for others.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.
      max_draws: limit on N, the draws kept per population; more are thinned.
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
    if not callable(log_likelihood):
        raise ValueError("log_likelihood is no function: the order is key, log_prior (or None), log_likelihood, z0")
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
    compiled = CompiledRounds(target, kernel, steps_per_round, step_spread, swap, max_draws)
    first = num_rounds.first_rounds if isinstance(num_rounds, Until) else num_rounds
    check_integer("num_rounds", first, low=8)
    until = num_rounds if isinstance(num_rounds, Until) else Until(max_rounds=first)
    run = compiled.warmed(key_run, rows.flat(starts), warmup_rounds, num_temperatures, until).more(first)
    was_done = False
    while True:
        if report is not None:
            report(run)
        rounds, is_done = len(run.trace.log_likelihood), run.is_done
        if 2 * rounds > until.max_rounds or (is_done and was_done):
            return run
        run, was_done = run.more(rounds), is_done


class CompiledRounds:
    """The compiled rounds of one target, and the host loops around them."""

    def __init__(
        self, target: Target, kernel: Kernel, steps_per_round: int, step_spread: float, swap: str, max_draws: int
    ):
        self._target, self._kernel, self._swap = target, kernel, swap
        self._steps_per_round, self._step_spread, self._max_draws = steps_per_round, step_spread, max_draws

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_begin", "_advance")}

    def warmed(
        self, key: Array, starts: Array, num_rounds: int, num_temperatures: int | None, until: Until
    ) -> TemperedRun:
        """A tuned run from positions [C, D], with no counted rounds yet."""
        key_scale, key = jax.random.split(key)
        num, exponent = num_temperatures or _START[0], _START[1]
        scale = np.ones(starts.shape[1:], starts.dtype)
        if (refresh := self._target.refresh) is not None:
            scale = np.std(refresh(key_scale, (_NUM_REFERENCE,)), axis=0)
        tuning = Tuning(
            np.asarray(power_ladder(num, exponent), starts.dtype),
            np.full(num, FIRST_STEP_SIZE, starts.dtype),
            np.tile(scale, (num, 1)),
        )
        state = RunState(key, 0, self._begin(np.tile(starts, (num, 1, 1))), tuning)
        lengths = _stages(num_rounds)
        for stage, length in enumerate(lengths, start=1):
            is_last = stage == len(lengths)
            swaps, positions = [], []
            for done in range(0, length, _SNAPSHOT):
                state, kept = self._rounds(state, min(_SNAPSHOT, length - done), count=done + 1)
                if np.isnan(kept.trace.log_likelihood).all():
                    raise ValueError("the log-densities are no number at any position from z0 on: give another z0")
                swaps.append(kept.trace.swap_acceptance)
                positions.append(kept.by_rung)
            state = self._tuned(
                state, np.concatenate(swaps).mean(axis=0, dtype=np.float64), np.stack(positions),
                grows=num_temperatures is None and not is_last, rescales=not is_last,
            )  # fmt: skip
        trace = jax.tree.map(lambda values: values[:0], kept.trace)
        nothing = self._target.rows.tree(np.zeros((len(starts), 0, self._target.rows.size), starts.dtype))
        return TemperedRun(nothing, trace, 1, until, state, self.extend)

    def extend(self, run: TemperedRun, num_rounds: int) -> TemperedRun:
        check_integer("num_rounds", num_rounds, low=1)
        state, thin, traces = run.state, run.thin, [run.trace]
        draws, first = np.asarray(self._target.rows.flat(run.draws)), len(run.trace.log_likelihood)
        last = first + num_rounds
        while first < last:
            num = min(self._chunk(len(draws)), last - first)
            state, kept = self._rounds(state, num)
            traces.append(kept.trace)
            is_kept = np.arange(first + 1, first + num + 1) % thin == 0
            draws = np.concatenate([draws, np.swapaxes(kept.top[is_kept], 0, 1)], axis=1)
            while draws.shape[1] > self._max_draws:
                thin, draws = 2 * thin, draws[:, 1::2]
            first += num
        trace = jax.tree.map(lambda *parts: np.concatenate(parts), *traces)
        return TemperedRun(self._target.rows.tree(draws), trace, thin, run.until, state, self.extend)

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
        num, wanted = betas.size, 2 * communication_barrier(swap_acceptance)[-1]
        if grows and wanted > num:
            num = min(math.ceil(wanted) + 1, _MAX_TEMPERATURES)
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
        return state._replace(tuning=tuning, population=self._begin(positions[-1, nearest]))

    def _rounds(self, state: RunState, num: int, count: int = 0) -> tuple[RunState, "_Kept"]:
        """Runs `num` rounds. With `count` > 0 step sizes adapt, beginning with update number `count`."""
        numbers = (np.int32(value) for value in (state.num_rounds, num, count))
        population, step_size, kept = self._advance(state.key, *numbers, state.population, state.tuning)
        trace = jax.tree.map(lambda values: np.asarray(values)[:num], kept.trace)
        kept = _Kept(trace, np.asarray(kept.top)[:num], np.asarray(kept.by_rung))
        tuning = state.tuning._replace(step_size=np.asarray(step_size))
        return RunState(state.key, state.num_rounds + num, population, tuning), kept

    def _chunk(self, num_chains: int) -> int:
        return max(1, min(_CHUNK, _CHUNK_FLOATS // (num_chains * self._target.rows.size)))

    @functools.cached_property
    def _begin(self) -> Callable[[Any], TemperedState]:
        target = self._target
        return jax.jit(lambda z: init(constrain(z, "temp", "data"), target.log_start, target.log_gain, len(z)))

    @functools.cached_property
    def _advance(self) -> Callable[..., tuple[TemperedState, Array, "_Kept"]]:
        """Runs rounds of a population; compiled once per number of rungs."""
        target = self._target
        one_round = functools.partial(
            step_round, log_prior=target.log_start, log_likelihood=target.log_gain, kernel=self._kernel,
            num_steps=self._steps_per_round, step_spread=self._step_spread, swap=self._swap, refresh=target.refresh,
        )  # fmt: skip

        def one(key: Array, index: Array, count: Array, population: TemperedState, step_size: Array, tuning: Tuning):
            population = jax.tree.map(lambda leaf: constrain(leaf, "temp", "data"), population)
            population, info = one_round(
                jax.random.fold_in(key, index), population, betas=tuning.betas, step_size=step_size, index=index,
                scale=tuning.scale,
            )  # fmt: skip
            info = jax.tree.map(constrain, info)  # on every device
            row = info._replace(acceptance=_mean(info.acceptance), swap_acceptance=_mean(info.swap_acceptance))
            is_refreshed = (target.reference is not None) & (tuning.betas == 0)
            adapted = adapted_steps(self._kernel, step_size, row.acceptance[:, None], count, is_refreshed)
            top = constrain(top_of(population.rung, population.replicas.position))
            return population, jnp.where(count > 0, adapted, step_size), (row, top)

        def advance(key: Array, first: Array, num: Array, count: Array, population: TemperedState, tuning: Tuning):
            start = (population, tuning.step_size)
            chunk = self._chunk(population.rung.shape[1])
            kept = jax.eval_shape(one, key, first, count, *start, tuning)[2]
            kept = jax.tree.map(lambda row: jnp.zeros((chunk, *row.shape), row.dtype), kept)

            def body(i: Array, carry: Any) -> Any:
                population, step_size, kept = carry
                now = jnp.where(count > 0, count + i, 0)
                population, step_size, row = one(key, first + i, now, population, step_size, tuning)
                return population, step_size, jax.tree.map(lambda rows, values: rows.at[i].set(values), kept, row)

            population, step_size, (trace, top) = jax.lax.fori_loop(0, num, body, (*start, kept))
            by_rung = rung_order(population.rung, population.replicas.position)
            # What the host reads is replicated on every device, so that each of several processes has it.
            return population, *jax.tree.map(constrain, (step_size, _Kept(trace, top, by_rung)))

        return jax.jit(advance)


class _Kept(NamedTuple):
    """Results of a chunk of rounds: trace, draws of the last rung [chunk, C, D], last positions by rung [T, C, D]."""

    trace: RoundInfo
    top: Any
    by_rung: Any


def _mean(values: Array) -> Array:
    """Mean over the populations of [K, C], added one by one: the order of a reduction changes with the mesh."""
    return functools.reduce(jnp.add, list(values.T)) / values.shape[1]


def _stages(num_rounds: int) -> list[int]:
    """Lengths of the warm-up's stages, each about twice the one before, so that later ladders have more rounds."""
    num = max(1, int(math.log2(num_rounds / _SNAPSHOT)))  # the first has about one snapshot
    ends = [round(num_rounds * (2**i - 1) / (2**num - 1)) for i in range(num + 1)]
    return np.diff(ends).tolist()
