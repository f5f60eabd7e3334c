"""The result of tempering: draws, log Z with its error, diagnostics."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from scipy.special import expit

from kaem_jax.mcmc.diagnostics import DrawWarning, effective_sample_size, explain_warning, r_hat
from kaem_jax.mcmc.fitted_reference import FittedReference
from kaem_jax.mcmc.ladder import communication_barrier
from kaem_jax.mcmc.rounds import RoundInfo, TemperedState
from kaem_jax.settings.arguments import check_integer

_LARGE_ROUNDING = 0.05  # nats
_BEYOND = 50.0  # nats beyond which a logistic function is 0 or 1, so that a root lies within
_CONTROL_ROUNDS = 2048
_MISSED = 0.02  # share of draws


@dataclasses.dataclass(frozen=True)
class Until:
    """When to stop: rounds double until all targets are met at two checks in a row, or `max_rounds` is reached.

    Chains that missed a rare mode look converged, so one check is not enough; the second one takes a quarter more.

    Attributes:
      ess: effective draws on the last rung, in the coordinate with the fewest; None for any number.
      round_trips: round trips of all populations together.
      log_z_error: standard error of log Z, nats; None for any.
      first_rounds, max_rounds: rounds before the first check, and the budget.
    """

    ess: float | None = 400
    round_trips: int = 20
    log_z_error: float | None = 0.05
    first_rounds: int = 512
    max_rounds: int = 2**15


class Tuning(NamedTuple):
    """What a warm-up learns: the ladder [T], step sizes [T] and units of coordinates [T, D], by rung."""

    betas: Any
    step_size: Any
    scale: Any


class RunState(NamedTuple):
    """What the next round needs: key, number of rounds done (warm-up included), replicas, tuning."""

    key: Array
    num_rounds: int
    population: TemperedState
    tuning: Tuning


@dataclasses.dataclass(frozen=True, eq=False)
class TemperedRun:
    """R rounds of C populations of T replicas. `print(run)` sums it up; it can be pickled if its densities can.

    Attributes:
      draws: a pytree like one position, with leading axes [C, N]: the last rung after every `thin`-th round.
      trace: by round: `log_likelihood` [R, T, C], log target minus log reference in nats, and `round_trips` [R, C];
        `acceptance` [R, T] and `swap_acceptance` [R, T-1] are means over populations.
      thin: rounds between draws, a power of two.
      until: the stopping rule.
      state: where `more` continues.
      reference: the density of the first rung; None if it has no draws.
      control: the run from the other reference, if one was fitted.
    """

    draws: Any
    trace: RoundInfo
    thin: int
    until: Until
    state: RunState
    extend: Callable[["TemperedRun", int], "TemperedRun"] = dataclasses.field(repr=False)
    reference: Any = None
    control: "TemperedRun | None" = dataclasses.field(default=None, repr=False)

    def more(self, num_rounds: int) -> "TemperedRun":
        """Continues by `num_rounds` rounds, bit for bit as if all rounds had been run at once.

        A control keeps up for the first 2,048 rounds, in which the better of both is chosen.
        """
        check_integer("num_rounds", num_rounds, low=1)
        together = 0 if self.control is None else _CONTROL_ROUNDS - len(self.control.trace.log_likelihood)
        run = self if self.control is None or not together else self._beside(self.control, min(num_rounds, together))
        if num_rounds > together:
            run = run.extend(run, num_rounds - together)
        return run

    def _beside(self, control: "TemperedRun", num_rounds: int) -> "TemperedRun":
        """The better of both, after more rounds of both."""
        both = [run.extend(run, num_rounds) for run in (self, control)]
        fitted, given = both if isinstance(self.reference, FittedReference) else both[::-1]
        is_better = given.min_ess > fitted.min_ess and given.log_z_error < fitted.log_z_error
        if is_better and fitted.agrees_with(given):
            fitted, given = given, fitted
        return dataclasses.replace(fitted, control=dataclasses.replace(given, control=None))

    def agrees_with(self, other: "TemperedRun") -> bool:
        """Whether both values of log Z are within three errors of each other."""
        return not abs(self.log_z - other.log_z) > 3 * np.hypot(self.log_z_error, other.log_z_error)

    @property
    def betas(self) -> np.ndarray:
        """The ladder [T]."""
        return np.asarray(self.state.tuning.betas)

    @property
    def round_trips(self) -> np.ndarray:
        """Int [C], round trips of each population from the reference to the target and back."""
        return np.sum(self.trace.round_trips, axis=0)

    @property
    def acceptance(self) -> np.ndarray:
        """Mean acceptance probability of moves, by rung, [T]."""
        return np.asarray(np.mean(self.trace.acceptance, axis=0, dtype=np.float64))

    @property
    def swap_acceptance(self) -> np.ndarray:
        """Mean exchange probability of neighbours, [T-1]."""
        return np.asarray(np.mean(self.trace.swap_acceptance, axis=0, dtype=np.float64))

    @functools.cached_property
    def barrier(self) -> float:
        """Lambda, the communication barrier; about 2 Lambda rungs are best. Rare swaps make it an underestimate."""
        return float(communication_barrier(self.swap_acceptance)[-1])

    @functools.cached_property
    def _evidence(self) -> tuple[np.ndarray, float]:
        return _bridge(np.asarray(self.trace.log_likelihood), self.betas)

    @property
    def log_z_by_rung(self) -> np.ndarray:
        """Log of the integral of each rung's density over that of the reference's, nats [T]; 0 for the first."""
        return np.concatenate([[0.0], np.cumsum(self._evidence[0])])

    @property
    def log_z(self) -> float:
        """Log of the target's integral, nats; see `bridge_log_z`."""
        return float(np.sum(self._evidence[0]))

    @property
    def log_z_error(self) -> float:
        """Standard error of `log_z`, nats."""
        return self._evidence[1]

    @functools.cached_property
    def ess(self) -> Any:
        """Effective draws of all populations together: a pytree like one position."""
        return jax.tree.map(lambda leaf: effective_sample_size(_by_draw(leaf), pooled=True), self.draws)

    @functools.cached_property
    def r_hat(self) -> Any:
        """R-hat of the halves of all populations, 2 C chains: a pytree like one position."""

        def halves(leaf: np.ndarray) -> np.ndarray:
            size = leaf.shape[1] // 2
            return r_hat(_by_draw(np.concatenate([leaf[:, :size], leaf[:, -size:]])))

        return jax.tree.map(halves, self.draws)

    @property
    def min_ess(self) -> float:
        """The smallest effective sample size of any coordinate."""
        return float(min(np.min(leaf) for leaf in jax.tree.leaves(self.ess)))

    @property
    def max_r_hat(self) -> float:
        """The largest R-hat of any coordinate; NaN if one never moved."""
        return float(np.max([np.max(leaf) for leaf in jax.tree.leaves(self.r_hat)]))

    @property
    def is_done(self) -> bool:
        """Whether all targets of `until` are met."""
        is_met = self._has_draws and self._has_evidence
        return is_met and int(np.sum(self.round_trips)) >= self.until.round_trips

    @property
    def _has_draws(self) -> bool:
        return self.until.ess is None or self.min_ess >= self.until.ess

    @property
    def _has_evidence(self) -> bool:
        return self.until.log_z_error is None or self.log_z_error <= self.until.log_z_error

    @property
    def warnings(self) -> list[str]:
        """Sentences about what is wrong with these draws; empty if nothing is."""
        conditions = {
            DrawWarning.R_HAT: not self.max_r_hat < 1.1,
            DrawWarning.NO_ROUND_TRIPS: not np.any(self.round_trips),
            DrawWarning.REJECTED: self.acceptance[-1] < 0.1,
            DrawWarning.FEW_DRAWS: not self._has_draws,
            DrawWarning.WIDE_EVIDENCE: not self._has_evidence,
        }
        found = explain_warning(sum(flag for flag, holds in conditions.items() if holds))
        if self.control is not None:
            found += self._doubts(self.control)
        rounding = float(np.median(np.abs(self.trace.log_likelihood[:, -1])) * np.finfo(self.betas.dtype).eps)
        if rounding > _LARGE_ROUNDING:
            found.append(
                f"log-densities are rounded to {rounding:.2g} nats: subtract a constant from them, or take 64 bits"
            )
        return found

    def _doubts(self, control: "TemperedRun") -> list[str]:
        """What the run from the other reference speaks against."""
        found, agrees = [], self.agrees_with(control)
        if isinstance(self.reference, FittedReference):
            own, theirs = (self.reference.shares(run.draws) for run in (self, control))
            # A control without draws in some modes lacks what they are worth.
            lost = min(np.sum(own[theirs < 0.01 * own]), 1 - 1e-9)
            gap = self.log_z - control.log_z + np.log1p(-lost)
            agrees = agrees or bool(abs(gap) < 3 * np.hypot(self.log_z_error, control.log_z_error))
            if theirs[0] - own[0] > _MISSED:
                found.append(
                    f"{theirs[0]:.1%} of the control's draws lie outside the modes to which the reference is fitted, "
                    f"and {own[0]:.1%} of these: a mode may be missed, take more rounds"
                )
        if not agrees:
            values = [f"{run.log_z:.2f} +- {run.log_z_error:.2f}" for run in (self, control)]
            found.append(
                f"log Z is {values[0]}, and {values[1]} from the other reference: one of them misses a mode, or weighs "
                "it wrongly"
            )
        return found

    def to_arviz(self) -> Any:
        """The draws for ArviZ, which must be installed: a DataTree, or InferenceData for ArviZ below 1.0."""
        import arviz

        posterior = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(self.draws)}
        if int(arviz.__version__.partition(".")[0]) >= 1:
            return arviz.from_dict({"posterior": posterior})
        return arviz.from_dict(posterior=posterior)

    def __str__(self) -> str:
        rounds, rungs, chains = self.trace.log_likelihood.shape
        lines = [
            f"{rounds} rounds of {chains} populations on {rungs} rungs: log Z = {self.log_z:.3f} +- "
            f"{self.log_z_error:.3f} nats, {self.min_ess:.0f} effective draws or more, R-hat {self.max_r_hat:.3f} or "
            f"less, {int(np.sum(self.round_trips))} round trips, barrier {self.barrier:.2f}"
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def _by_draw(leaf: np.ndarray) -> np.ndarray:
    """[C, N, ...] as [N, C, ...] in 64 bits."""
    return np.swapaxes(leaf, 0, 1).astype(np.float64)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "z"


def bridge_log_z(log_likelihood: np.ndarray, betas: np.ndarray) -> tuple[float, float]:
    """Log Z_1 - log Z_0 from C populations on one ladder, and its standard error.

    Each pair of neighbours uses Bennett's acceptance ratio (1976), the bridge of least variance; steppingstone weights
    exp(Delta l) would be unbounded. The error is that of the mean influence function: it includes correlations between
    rungs and rounds and differences between populations, but not a mode that no chain has found.

    Args:
      log_likelihood: [R, T, C] nats, by round, rung and population; R >= 4 and T >= 2.
      betas: [T].

    Returns:
      Both in nats. The error is infinite for NaN, or if neighbours do not overlap.
    """
    gains, error = _bridge(log_likelihood, betas)
    return float(np.sum(gains)), error


def _bridge(log_likelihood: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, float]:
    """Log Z_{k+1} - log Z_k, [T-1], and the standard error of their sum."""
    trace = np.asarray(log_likelihood, np.float64)
    width = np.diff(np.asarray(betas, np.float64))[:, None]
    up, down = width * trace[:, :-1], width * trace[:, 1:]
    if np.isnan(trace).any():
        return np.full(len(width), np.nan), np.inf
    gain = np.array([_root(up[:, k], down[:, k]) for k in range(len(width))])[:, None]
    hot, cold = expit(up - gain), expit(gain - down)  # [R, T-1, C]
    slope = np.mean(hot * (1 - hot) + cold * (1 - cold), axis=(0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        influence = np.sum((hot - cold) / slope[:, None], axis=1)  # [R, C]
    if not np.isfinite(influence).all():
        return gain.ravel(), np.inf
    return gain.ravel(), float(np.std(influence) / np.sqrt(effective_sample_size(influence, pooled=True)))


def _root(up: np.ndarray, down: np.ndarray) -> float:
    """The c at which expit(up - c) and expit(c - down) have equal means over rounds and populations [R, C]."""
    from scipy.optimize import brentq  # takes a fifth of a second to import: only where it is used

    if not (np.isfinite(up).any() and np.isfinite(down).any()):
        return -np.inf
    finite = np.concatenate([up[np.isfinite(up)], down[np.isfinite(down)]])
    low, high = np.min(finite) - _BEYOND, np.max(finite) + _BEYOND
    # Far from the target a log-density may be -1e38, from where bisection takes more steps than usual.
    return brentq(lambda c: np.mean(expit(up - c)) - np.mean(expit(c - down)), low, high, maxiter=1000)
