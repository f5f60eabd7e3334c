"""Estimators of log p(x) with fixed options, to be called with a key, a model, its parameters and data."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.evidence.estimate import Evidence, is_bound
from kaem_jax.evidence.methods import EVIDENCE_METHODS, log_evidence
from kaem_jax.model import Model, Params
from kaem_jax.reference import PriorReference, Reference

__all__ = ["AutoEstimator", "Effort", "Estimator", "make_estimator"]

_FIRST_TEMPERATURES = 32  # of the first annealing, which doubles


class Effort(NamedTuple):
    """What was done for an estimate.

    Attributes:
      method: see `log_evidence`.
      settings: its numbers, by name.
      num_draws: proposals or chains for each datum.
      num_gradients: gradient evaluations for each datum, columns of Jacobians included.
    """

    method: str
    settings: dict[str, int]
    num_draws: int
    num_gradients: int


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
        """Estimates for data x [N, *data_shape]; with `batch_size` their errors are independent between data."""
        return self._estimate(key, model, params, x), self._effort(model)

    def _estimate(self, key: Array, model: Model, params: Params, x: Array) -> Evidence:
        options = dict(self.options)
        is_shared = self.method == "importance" and isinstance(options.get("reference"), PriorReference | None)
        if self.batch_size is None or is_shared:
            return log_evidence(key, model, params, x, self.method, **options)
        size = min(self.batch_size, len(x))
        parts = []
        for i, first in enumerate(range(0, len(x), size)):
            rows = jnp.arange(first, first + size) % len(x)  # the last batch is filled up: one compiled program
            part = log_evidence(jax.random.fold_in(key, i), model, params, x[rows], self.method, **options)
            parts.append(Evidence(*(leaf[: len(x) - first] if leaf.ndim else leaf for leaf in part)))
        value, error, _, ess = (
            jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]) for leaves in zip(*parts, strict=True)
        )
        return Evidence(value, error, jnp.sqrt(jnp.sum(error**2)) / len(x), ess)

    def _effort(self, model: Model) -> Effort:
        options = dict(self.options)
        reference = options.get("reference")
        settings = {
            name: value for name, value in options.items() if name in ("num_samples", "num_temperatures", "num_chains")
        }
        fit = 2 * reference.num_gradients(model) if reference is not None else 0
        if self.method == "importance":
            return Effort(self.method, settings, options["num_samples"], fit)
        num_temperatures = options["num_temperatures"]
        if self.method == "ais":  # with a pilot chain for each of two fits
            num_chains = options.get("num_chains", 8)
            return Effort(self.method, settings, num_chains, fit + (num_chains + 2) * num_temperatures)
        num_rounds, moves = options.get("num_rounds", 200), options.get("steps_per_round", 2)
        return Effort(self.method, settings, num_rounds, fit // 2 + num_temperatures * moves * (3 * num_rounds // 2))


@dataclasses.dataclass(frozen=True)
class AutoEstimator:
    """Importance sampling from a reference; where it gives a bound only, annealing that doubles its temperatures.

    It ends with the first estimate that is no bound. If the next doubling would exceed the budget, the result is the
    bound with the largest mean: each is one in expectation, and the choice favours none by more than their errors.

    Attributes:
      reference: of `make_reference`.
      num_samples: proposals for each datum.
      num_chains: annealed chains for each datum.
      budget: gradient evaluations for each datum, without those that fit the reference.
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
        """See `Estimator.__call__`; the effort is that of the result, but counts the gradients of all tries."""
        key, key_first = jax.random.split(key)
        evidence, effort = self.first(key_first, model, params, x)
        spent, tries, num_temperatures = 0, 1, _FIRST_TEMPERATURES
        while is_bound(float(jnp.median(evidence.ess)), effort.num_draws):
            annealed = self._with("ais", num_chains=self.num_chains, num_temperatures=num_temperatures)
            cost = (self.num_chains + 2) * num_temperatures
            if spent + cost > self.budget:
                break
            spent, tries = spent + cost, tries + 1
            other, other_effort = annealed(jax.random.fold_in(key, num_temperatures), model, params, x)
            is_better = jnp.mean(other.value) > jnp.mean(evidence.value)
            if is_better or not is_bound(float(jnp.median(other.ess)), other_effort.num_draws):
                evidence, effort = other, other_effort
            num_temperatures *= 2
        return evidence, effort._replace(num_gradients=spent + 2 * tries * self.reference.num_gradients(model))

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
    if method not in EVIDENCE_METHODS:
        raise ValueError(f"method={method!r} is not known; allowed: {', '.join(EVIDENCE_METHODS)}")
    if effort not in options:
        raise ValueError(f"method={method!r} needs an effort: {effort}")
    return Estimator(method, tuple(sorted(options.items())), batch_size)
