"""Tempering of any density to the precision that is asked for: a loop on the host around one compiled program."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.mcmc.kernels import MALA, Kernel, make_kernel
from kaem_jax.mcmc.ladder import communication_barrier, even_ladder, power_ladder
from kaem_jax.mcmc.reference import Reference
from kaem_jax.mcmc.rounds import SWAPS, TemperedState, init, rung_order, step_round, top_of
from kaem_jax.mcmc.tempered_run import Progress, TemperedRun, Trace, Tuning, Until
from kaem_jax.mcmc.tempering import adapted_steps
from kaem_jax.settings.arguments import check_choice, check_integer, check_key

__all__ = ["tempered"]

_START = (16, 3.0)  # rungs and exponent of the first ladder: more rungs where log-likelihoods change fastest
_MAX_TEMPERATURES = 128
_SNAPSHOT = 16  # rounds of a warm-up between positions that tell the units of coordinates
_NUM_REFERENCE = 256  # draws of the reference that give the first units of coordinates
_PRIOR_DRAWS = 3  # for how many draws the units of the stage before count
_CHUNK = 256  # rounds a call of the compiled program, fewer where draws are large
_CHUNK_FLOATS = 2**24

LogDensityOfOne = Callable[[Any], Array]


def tempered(
    key: Array,
    log_prior: LogDensityOfOne | Reference | None,
    log_likelihood: LogDensityOfOne,
    z0: Any = None,
    *,
    reference: Reference | None = None,
    num_chains: int | None = 4,
    num_rounds: int | Until = Until(),  # noqa: B008 (frozen)
    warmup_rounds: int = 1000,
    num_temperatures: int | None = None,
    kernel: Kernel | str = MALA(),
    steps_per_round: int = 1,
    step_spread: float = 1.0,
    swap: str = "even_odd",
    max_draws: int = 2000,
    report: Callable[[TemperedRun], None] | None = None,
) -> TemperedRun:
    """Draws of the density log_prior + log_likelihood, and log of its integral, by populations of tempered chains.

        run = kaem.mcmc.tempered(key, log_prior, log_likelihood, {"mean": jnp.zeros(3), "scale": jnp.zeros(())})
        print(run.log_z, run.log_z_error, run.draws["mean"].mean((0, 1)), run.warnings)

    Rung beta has the density reference^(1 - beta) target^beta, from the reference (by default the prior) at 0 to the
    target at 1. A warm-up of doubling stages tunes step sizes, the units of each coordinate and the ladder; then the
    tuning stays, and all rounds count. Under `jax.set_mesh` with axes `temp` and `data`, rungs lie along the one and
    populations along the other, and draws are the same on any number of devices. Not for use inside jit: that is
    `tempered_posterior`.

    Args:
      key: a PRNG key.
      log_prior: one position to a scalar in nats; or a density with `sample` and `log_prob`, which is then the
        reference, too; or None, which is 0.
      log_likelihood: one position to a scalar in nats.
      z0: one position, any pytree of floats, from which all chains start; with num_chains=None a batch of positions,
        one for each population. None draws the starts from the reference.
      reference: a density with `sample` and `log_prob`, whose draws refresh the first rung, such as `NormalReference`.
      num_chains: C, independent populations.
      num_rounds: rounds that count, or what must be reached.
      warmup_rounds: rounds before them.
      num_temperatures: T. None takes 16, and more where the barrier found in the warm-up needs more.
      kernel: an object such as `kaem_jax.mcmc.HMC(10)`, or its registered name; one with an accept step.
      steps_per_round: moves between exchanges.
      step_spread: standard deviation of the logarithm of a move's step size, about that of its rung. Larger ones, and
        `HMC`, suit densities whose width varies, such as funnels; 0 the others, by up to a fifth.
      swap: one of `kaem_jax.mcmc.rounds.SWAPS`.
      max_draws: N, draws of each population that are kept; more are thinned.
      report: called with the run so far at each check, for instance `print`.

    Raises:
      ValueError: an argument does not fit, or a log-density of one position is not a scalar.
    """
    check_key(key)
    kernel = make_kernel(kernel)
    if not kernel.is_exact:
        raise ValueError(f"kernel={kernel!r} accepts every move, so that draws and log Z are biased; take MALA()")
    check_choice("swap", swap, SWAPS)
    for name, value, low in (("warmup_rounds", warmup_rounds, 1), ("steps_per_round", steps_per_round, 1)):
        check_integer(name, value, low=low)
    check_integer("num_temperatures", 2 if num_temperatures is None else num_temperatures, low=2)
    check_integer("max_draws", max_draws, low=8)
    is_prior = reference is None and hasattr(log_prior, "sample")
    if is_prior:
        reference, log_prior = cast(Reference, log_prior), None
    key_start, key_run = jax.random.split(key)
    if z0 is None:
        if reference is None or num_chains is None:
            raise ValueError("z0=None needs a reference with `sample`, to start from, and num_chains")
        starts = reference.sample(key_start, (num_chains,))
    elif num_chains is None:
        starts = z0
    else:
        starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *jnp.shape(leaf))), z0)
    rows = _Rows(starts)
    target = _Target(rows, cast("LogDensityOfOne | None", log_prior), log_likelihood, reference, is_prior)
    target.check()
    sampler = _Sampler(target, kernel, steps_per_round, step_spread, swap, max_draws)
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


class _Rows:
    """Positions as rows of numbers: [..., D] for a pytree with leaves [..., *shape]."""

    def __init__(self, positions: Any):
        leaves, self._tree = jax.tree.flatten(positions)
        kinds = {jnp.result_type(leaf) for leaf in leaves}
        if not leaves or not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
            raise ValueError(f"z0 has leaves of {sorted(map(str, kinds))}; chains move on floats")
        self._shapes = [jnp.shape(leaf)[1:] for leaf in leaves]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        self.size = int(self._ends[-1])
        self.dtype = jnp.result_type(*leaves)

    def flat(self, positions: Any) -> Array:
        leaves = zip(jax.tree.leaves(positions), self._shapes, strict=True)
        flat = [leaf.reshape(*leaf.shape[: leaf.ndim - len(shape)], math.prod(shape)) for leaf, shape in leaves]
        return flat[0].__array_namespace__().concatenate(flat, axis=-1).astype(self.dtype)

    def tree(self, rows: Any) -> Any:
        parts = rows.__array_namespace__().split(rows, self._ends[:-1], axis=-1)
        shaped = zip(parts, self._shapes, strict=True)
        return jax.tree.unflatten(self._tree, [part.reshape(*rows.shape[:-1], *shape) for part, shape in shaped])


@dataclasses.dataclass(frozen=True, eq=False)
class _Target:
    """The two ends of the path, for rows [..., D]."""

    rows: _Rows
    log_prior: LogDensityOfOne | None
    log_likelihood: LogDensityOfOne
    reference: Reference | None
    reference_is_prior: bool

    def log_start(self, z: Array) -> Array:
        return self._of_rows(self._one_start)(z)

    def log_gain(self, z: Array) -> Array:
        return self._of_rows(self._one_gain)(z)

    def refresh(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Exact draws [*shape, D] of the reference."""
        assert self.reference is not None
        return self.rows.flat(self.reference.sample(key, shape))

    def check(self) -> None:
        """Raises a ValueError where a log-density of one position is not a scalar."""
        row = jax.ShapeDtypeStruct((self.rows.size,), self.rows.dtype)
        for name, log_density in (("log_prior", self._one_start), ("log_likelihood", self._one_gain)):
            shape = jax.eval_shape(lambda row, f=log_density: f(self.rows.tree(row)), row).shape
            if shape:
                raise ValueError(f"{name} of one position has shape {shape}; it must be a scalar: sum over coordinates")

    def _one_start(self, z: Any) -> Array:
        return self._prior(z) if self.reference is None else self.reference.log_prob(z)

    def _one_gain(self, z: Any) -> Array:
        gain = self.log_likelihood(z)
        if self.reference is None or self.reference_is_prior:
            return gain
        return gain + self._prior(z) - self.reference.log_prob(z)

    def _prior(self, z: Any) -> Array:
        return jnp.zeros((), self.rows.dtype) if self.log_prior is None else self.log_prior(z)

    def _of_rows(self, log_density: LogDensityOfOne) -> Callable[[Array], Array]:
        return jnp.vectorize(lambda row: log_density(self.rows.tree(row)), signature="(d)->()")


class _Sampler:
    """The compiled rounds of one target, and the loops around them."""

    def __init__(
        self, target: _Target, kernel: Kernel, steps_per_round: int, step_spread: float, swap: str, max_draws: int
    ):
        self._target, self._kernel, self._swap = target, kernel, swap
        self._steps_per_round, self._step_spread, self._max_draws = steps_per_round, step_spread, max_draws

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_begin", "_advance")}

    def warmed(
        self, key: Array, starts: Array, num_rounds: int, num_temperatures: int | None, until: Until
    ) -> TemperedRun:
        """A run of no rounds, tuned, from positions [C, D]."""
        key_scale, key = jax.random.split(key)
        num, exponent = num_temperatures or _START[0], _START[1]
        scale = np.ones(starts.shape[1:], starts.dtype)
        if self._target.reference is not None and not self._kernel.needs_standard_normal:
            scale = np.std(self._target.refresh(key_scale, (_NUM_REFERENCE,)), axis=0)
        tuning = Tuning(
            np.asarray(power_ladder(num, exponent), starts.dtype),
            np.full(num, self._kernel.first_step_size, starts.dtype),
            np.tile(scale, (num, 1)),
        )
        progress = Progress(key, 0, self._begin(np.tile(starts, (num, 1, 1))), tuning)
        lengths = _stages(num_rounds)
        for stage, length in enumerate(lengths, start=1):
            is_last = stage == len(lengths)
            swaps, positions = [], []
            for done in range(0, length, _SNAPSHOT):
                progress, kept = self._rounds(progress, min(_SNAPSHOT, length - done), count=done + 1)
                swaps.append(kept.trace.swap_acceptance)
                positions.append(kept.by_rung)
            progress = self._tuned(
                progress, np.concatenate(swaps).mean(axis=0, dtype=np.float64), np.stack(positions),
                grows=num_temperatures is None and not is_last, rescales=not is_last,
            )  # fmt: skip
        num = progress.tuning.betas.size  # it may have grown
        trace = Trace(*(np.zeros((0, *shape)) for shape in self._shapes(num, len(starts))))
        nothing = self._target.rows.tree(np.zeros((len(starts), 0, self._target.rows.size), starts.dtype))
        return TemperedRun(nothing, trace, 1, until, progress, self.extend)

    def extend(self, run: TemperedRun, num_rounds: int) -> TemperedRun:
        """`run` and `num_rounds` more."""
        check_integer("num_rounds", num_rounds, low=1)
        progress, thin, traces = run.progress, run.thin, [run.trace]
        draws, first = np.asarray(self._target.rows.flat(run.draws)), len(run.trace.log_likelihood)
        last = first + num_rounds
        while first < last:
            num = min(self._chunk(len(draws)), last - first)
            progress, kept = self._rounds(progress, num)
            traces.append(kept.trace)
            is_kept = np.arange(first + 1, first + num + 1) % thin == 0
            draws = np.concatenate([draws, np.swapaxes(kept.top[is_kept], 0, 1)], axis=1)
            while draws.shape[1] > self._max_draws:
                thin, draws = 2 * thin, draws[:, 1::2]
            first += num
        trace = jax.tree.map(lambda *parts: np.concatenate(parts), *traces)
        return TemperedRun(self._target.rows.tree(draws), trace, thin, run.until, progress, self.extend)

    def _tuned(
        self, progress: Progress, swap_acceptance: np.ndarray, positions: np.ndarray, *, grows: bool, rescales: bool
    ) -> Progress:
        """The next ladder, from exchanges [T-1] and positions [S, T, C, D] of a stage."""
        betas, step_size, scale = map(np.asarray, progress.tuning)
        if rescales and not self._kernel.needs_standard_normal:
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
            """On the new ladder, of logarithms linear in beta."""
            weight = np.expand_dims(share, tuple(range(1, values.ndim)))
            logs = (1 - weight) * np.log(values[at]) + weight * np.log(values[at + 1])
            return np.exp(logs).astype(betas.dtype)

        tuning = Tuning(new.astype(betas.dtype), between(step_size), between(scale))
        if num == betas.size:
            return progress._replace(tuning=tuning)
        nearest = np.where(share < 0.5, at, at + 1)
        return progress._replace(tuning=tuning, population=self._begin(positions[-1, nearest]))

    def _rounds(self, progress: Progress, num: int, count: int = 0) -> tuple[Progress, "_Kept"]:
        """`num` rounds; with `count` > 0 step sizes adapt, for the `count`-th time first."""
        numbers = (np.int32(value) for value in (progress.num_rounds, num, count))
        population, step_size, kept = self._advance(progress.key, *numbers, progress.population, progress.tuning)
        trace = jax.tree.map(lambda values: np.asarray(values)[:num], kept.trace)
        kept = _Kept(trace, np.asarray(kept.top)[:num], np.asarray(kept.by_rung))
        tuning = progress.tuning._replace(step_size=np.asarray(step_size))
        return Progress(progress.key, progress.num_rounds + num, population, tuning), kept

    def _chunk(self, num_chains: int) -> int:
        return max(1, min(_CHUNK, _CHUNK_FLOATS // (num_chains * self._target.rows.size)))

    def _shapes(self, num_rungs: int, num_chains: int) -> list[tuple[int, ...]]:
        """Of a round's `Trace`."""
        return [(num_rungs, num_chains), (num_rungs,), (num_rungs - 1,), (num_chains,)]

    @functools.cached_property
    def _begin(self) -> Callable[[Any], TemperedState]:
        """Replicas at positions [T, C, D], compiled."""
        target = self._target
        return jax.jit(lambda z: init(constrain(z, "temp", "data"), target.log_start, target.log_gain, len(z)))

    @functools.cached_property
    def _advance(self) -> Callable[..., tuple[TemperedState, Array, "_Kept"]]:
        """Rounds of a population, compiled once for each number of rungs."""
        target = self._target
        one_round = functools.partial(
            step_round, log_prior=target.log_start, log_likelihood=target.log_gain, kernel=self._kernel,
            num_steps=self._steps_per_round, step_spread=self._step_spread, swap=self._swap,
            refresh=None if target.reference is None else target.refresh,
        )  # fmt: skip

        def advance(key: Array, first: Array, num: Array, count: Array, population: TemperedState, tuning: Tuning):
            num_chains, size = population.replicas.position.shape[1:]
            betas, is_refreshed = tuning.betas, (target.reference is not None) & (tuning.betas == 0)
            chunk, dtype = self._chunk(num_chains), population.replicas.position.dtype
            shapes = self._shapes(betas.size, num_chains)
            kinds = (dtype, dtype, dtype, jnp.int32)
            trace = Trace(*(jnp.zeros((chunk, *shape), kind) for shape, kind in zip(shapes, kinds, strict=True)))
            top = jnp.zeros((chunk, num_chains, size), dtype)

            def body(i: Array, carry: tuple[TemperedState, Array, Trace, Array]):
                population, step_size, trace, top = carry
                population = jax.tree.map(lambda leaf: constrain(leaf, "temp", "data"), population)
                population, info = one_round(
                    jax.random.fold_in(key, first + i), population, betas=betas, step_size=step_size, index=first + i,
                    scale=tuning.scale,
                )  # fmt: skip
                info = jax.tree.map(constrain, info)  # on every device
                acceptance, swap_acceptance = _mean(info.acceptance), _mean(info.swap_acceptance)
                adapted = adapted_steps(self._kernel, step_size, acceptance[:, None], count + i, is_refreshed)
                row = Trace(info.log_likelihood, acceptance, swap_acceptance, info.round_trips)
                return (
                    population,
                    jnp.where(count > 0, adapted, step_size),
                    jax.tree.map(lambda rows, values: rows.at[i].set(values), trace, row),
                    top.at[i].set(constrain(top_of(population.rung, population.replicas.position))),
                )

            start = (population, tuning.step_size, trace, top)
            population, step_size, trace, top = jax.lax.fori_loop(0, num, body, start)
            by_rung = rung_order(population.rung, population.replicas.position)
            # All that the host reads is on every device, so that each of several processes has it.
            return population, *jax.tree.map(constrain, (step_size, _Kept(trace, top, by_rung)))

        return jax.jit(advance)


class _Kept(NamedTuple):
    """Of a call of `chunk` rounds: their trace, draws of the last rung [chunk, C, D], and all positions [T, C, D]."""

    trace: Trace
    top: Any
    by_rung: Any


def _mean(values: Array) -> Array:
    """Over the populations of [K, C], one addition after another: the order of a reduction changes with the mesh."""
    return functools.reduce(jnp.add, list(values.T)) / values.shape[1]


def _stages(num_rounds: int) -> list[int]:
    """Lengths of the stages of a warm-up, each about twice the one before, so that more rounds judge each ladder."""
    num = max(1, int(math.log2(num_rounds / _SNAPSHOT)))  # the first has about one snapshot
    ends = [round(num_rounds * (2**i - 1) / (2**num - 1)) for i in range(num + 1)]
    return np.diff(ends).tolist()
