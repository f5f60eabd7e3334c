"""Estimators of log p(x) with fixed options, to be called with a key, a model, its parameters and data."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.batches import filled_batches
from kaem_jax.inference.evidence.estimate import Evidence, is_bound
from kaem_jax.inference.evidence.log_evidence import EVIDENCE_METHODS, log_evidence, num_fits
from kaem_jax.inference.proposals import PriorReference, Reference
from kaem_jax.model import Model, Params
from kaem_jax.settings.arguments import check_choice

__all__ = ["AutoEstimator", "Effort", "Estimator", "EvidenceEstimator", "make_estimator"]

_FIRST_TEMPERATURES = 32  # of the first annealing, which doubles
_DEFAULTS = {name: one.default for name, one in inspect.signature(log_evidence).parameters.items()}


class Effort(NamedTuple):
    """What was done for an estimate.

    Attributes:
      method: see `log_evidence`; `importance and ais` if some data were annealed.
      settings: its numbers, by name.
      num_gradients: gradient evaluations for each datum, the mean over data, columns of Jacobians included.
    """

    method: str
    settings: dict[str, int]
    num_gradients: int


class EvidenceEstimator(Protocol):
    """Estimates log p(x) for any number of data."""

    def __call__(self, key: Array, model: Model, params: Params, x: Array) -> tuple[Evidence, Effort]:
        """The estimates of data x [N, *data_shape], and what they cost."""
        ...

    @property
    def first(self) -> "Estimator":
        """What is tried first."""
        ...


@dataclasses.dataclass(frozen=True)
class Estimator:
    """`log_evidence` with its method and options, over any number of data. Static and hashable.

    Attributes:
      method: see `log_evidence`.
      options: its other arguments, as pairs.
      batch_size: number of data at once; None takes all. Importance sampling from the prior always takes all, since its
        draws are shared by the data.
    """

    method: str
    options: tuple[tuple[str, Any], ...] = ()
    batch_size: int | None = None

    def __call__(self, key: Array, model: Model, params: Params, x: Array) -> tuple[Evidence, Effort]:
        """Estimates for data x [N, *data_shape]; with `batch_size` the errors of batches are independent."""
        return self._estimate(key, model, params, x), self._effort(model)

    @property
    def first(self) -> "Estimator":
        return self

    def _estimate(self, key: Array, model: Model, params: Params, x: Array) -> Evidence:
        options = dict(self.options)
        is_shared = self.method == "importance" and isinstance(options.get("reference"), PriorReference | None)
        if self.batch_size is None or is_shared:
            return log_evidence(key, model, params, x, self.method, **options)
        size = min(self.batch_size, len(x))
        parts = []
        for i, (rows, count) in enumerate(filled_batches(len(x), size)):
            batch = x[jnp.asarray(rows)]
            part = log_evidence(jax.random.fold_in(key, i), model, params, batch, self.method, **options)
            parts.append(Evidence(*(leaf[:count] if leaf.ndim else leaf for leaf in part)))
        value, error, _, ess, are_bounds = (
            jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]) for leaves in zip(*parts, strict=True)
        )
        return Evidence(value, error, jnp.sqrt(jnp.sum(error**2)) / len(x), ess, are_bounds)

    def _effort(self, model: Model) -> Effort:
        options = _DEFAULTS | dict(self.options)
        reference = options["reference"]
        settings = {
            name: value for name, value in self.options if name in ("num_samples", "num_temperatures", "num_chains")
        }
        fits = num_fits(reference)
        fit = fits * reference.num_gradients(model) if reference is not None else 0
        if self.method == "importance":
            return Effort(self.method, settings, fit)
        if model.prior.bounds is not None:  # then annealing starts from the prior
            fit = 0
        num_temperatures = options["num_temperatures"]
        if self.method == "ais":
            return Effort(self.method, settings, fit + _annealing(options["num_chains"], num_temperatures, fits))
        num_rounds, moves = options["num_rounds"], options["steps_per_round"]
        return Effort(self.method, settings, fit // fits + num_temperatures * moves * (3 * num_rounds // 2))


def _annealing(num_chains: int, num_temperatures: int, fits: int) -> int:
    """Gradient evaluations of annealing for each datum, those of a pilot chain for each fit included."""
    return (num_chains + fits) * num_temperatures


@dataclasses.dataclass(frozen=True)
class AutoEstimator:
    """Importance sampling from a reference, and annealing of the data for which it does not suffice.

    Data whose effective sample sizes are too small are annealed, each time with twice as many temperatures. A datum
    keeps its first value whose effective sample size suffices. The others take their newest bounds: the larger of two
    lower bounds would be no lower bound in expectation.

    Attributes:
      reference: of `make_reference`.
      num_samples: proposals for each datum.
      num_chains: annealed chains for each datum.
      budget: gradient evaluations for each datum that is annealed, without those that fit the reference.
      chunk_size: see `log_evidence`.
      batch_size: number of data at once.
    """

    reference: Reference
    num_samples: int = 1000
    num_chains: int = 32
    budget: int = 5000
    chunk_size: int = 20_000
    batch_size: int = 100

    def __call__(self, key: Array, model: Model, params: Params, x: Array) -> tuple[Evidence, Effort]:
        """See `Estimator.__call__`; the effort counts the gradients of all tries."""
        key, key_first = jax.random.split(key)
        evidence, effort = self.first(key_first, model, params, x)
        is_loose = np.array(is_bound(evidence.ess, self.num_samples))
        was_annealed = np.zeros(len(x), bool)
        settings, num_gradients = dict(effort.settings), effort.num_gradients * len(x)
        for num_temperatures in self._ladder_lengths():
            if not is_loose.any():
                break
            annealed = self._with("ais", num_chains=self.num_chains, num_temperatures=num_temperatures)
            rows = np.flatnonzero(is_loose)
            again_key = jax.random.fold_in(key, num_temperatures)
            again, again_effort = annealed(again_key, model, params, x[self._padded(rows)])
            num_gradients += again_effort.num_gradients * len(rows)
            # A new value that is no number, of chains that got lost, says less than any old one.
            taken = np.flatnonzero(jnp.isfinite(again.value[: len(rows)]) | ~jnp.isfinite(evidence.value[rows]))
            if len(taken):
                was_annealed[rows[taken]] = True
                is_loose[rows[taken]] = is_bound(again.ess[taken], self.num_chains)
                evidence = self._replaced(evidence, rows[taken], again, taken, was_annealed)
                settings |= again_effort.settings
        if was_annealed.all():
            del settings["num_samples"]
        elif was_annealed.any():
            settings["num_annealed"] = int(was_annealed.sum())
        method = "ais" if was_annealed.all() else "importance and ais" if was_annealed.any() else "importance"
        return evidence, Effort(method, settings, round(num_gradients / len(x)))

    def _ladder_lengths(self) -> Iterator[int]:
        """Numbers of temperatures, each twice the one before: as many annealings as the budget pays for."""
        spent, num = 0, _FIRST_TEMPERATURES
        while (spent := spent + _annealing(self.num_chains, num, num_fits(self.reference))) <= self.budget:
            yield num
            num *= 2

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """Rows repeated up to a power of two, or to a batch: few programs serve all numbers of data."""
        size = min(self.batch_size, 1 << (len(rows) - 1).bit_length())
        return rows[np.arange(max(size, len(rows))) % len(rows)]

    def _replaced(
        self, evidence: Evidence, rows: np.ndarray, again: Evidence, taken: np.ndarray, was_annealed: np.ndarray
    ) -> Evidence:
        """The estimates with those of `rows` replaced by `taken` ones of another try."""
        named = ("value", "standard_error", "ess", "is_bound")
        merged = {name: getattr(evidence, name).at[rows].set(getattr(again, name)[taken]) for name in named}
        error = merged["standard_error"]
        first = jnp.where(was_annealed, 0, error)
        is_shared = isinstance(self.reference, PriorReference)  # then errors of the first draws may all have one sign
        variance = jnp.sum(first) ** 2 if is_shared else jnp.sum(first**2)
        variance += jnp.sum(jnp.where(was_annealed, error**2, 0))
        return Evidence(mean_standard_error=jnp.sqrt(variance) / error.size, **merged)

    @property
    def first(self) -> Estimator:
        """What is tried first."""
        return self._with("importance", num_samples=self.num_samples, chunk_size=self.chunk_size)

    def _with(self, method: str, **options: Any) -> Estimator:
        return make_estimator(method, batch_size=self.batch_size, reference=self.reference, **options)


def make_estimator(method: str, *, batch_size: int | None = None, **options: Any) -> Estimator:
    """Builds an estimator; `options` are arguments of `log_evidence`.

    Raises:
      ValueError: `method` is unknown, or no option says how much effort to spend.
    """
    effort = "num_samples" if method == "importance" else "num_temperatures"
    check_choice("method", method, EVIDENCE_METHODS)
    if effort not in options:
        raise ValueError(f"method={method!r} needs {effort}, which says how much effort to spend")
    return Estimator(method, tuple(sorted(options.items())), batch_size)
