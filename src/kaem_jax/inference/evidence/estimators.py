"""Estimators of log p(x) with fixed options: functions of a key, a model, its parameters and data."""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.inference.evidence.estimate import Evidence, is_bound, is_prior
from kaem_jax.inference.evidence.log_evidence import Method, log_evidence, num_fits
from kaem_jax.inference.proposals import Proposal
from kaem_jax.jax_utils.batches import filled_batches
from kaem_jax.model import Model, Params
from kaem_jax.priors import Prior
from kaem_jax.settings import Settings, setting

Progress = Callable[[int, int], None]  # takes the number of data that are done, and of all
_FIRST_TEMPERATURES = 32  # of the first annealing, which doubles


class Effort(NamedTuple):
    """The effort spent on an estimate.

    Attributes:
      method: see `log_evidence`; `importance and ais` if some data were annealed.
      settings: numbers of samples, chains and temperatures, by name.
      num_gradients: mean number of gradient evaluations per datum; a column of a Jacobian counts as one.
    """

    method: str
    settings: dict[str, int]
    num_gradients: int


class Estimator(Settings, abc.ABC):
    """Estimates log p(x) of any number of data, `batch_size` at once. Static and hashable."""

    batch_size: int
    chunk_size: int = 20_000

    @property
    def final(self) -> Self:
        """The estimator of a run's last evaluation, with the efforts of the fields `final_*`."""
        settings: Any = self
        pairs = ((name.partition("final_"), effort) for name, effort in vars(self).items())
        return dataclasses.replace(settings, **{name: effort for (_, is_final, name), effort in pairs if is_final})

    @property
    def tried_first(self) -> "Estimator":
        return self

    @property
    @abc.abstractmethod
    def num_evaluations(self) -> int:
        """Evaluations of the joint density for each datum, at most, without those that fit the proposal."""

    def check(self, prior: Prior, proposal: Proposal) -> None:
        """Raises a ValueError, which begins with the setting, for a prior or proposal that does not suit."""
        if not (prior.is_normalized or is_prior(proposal)):
            raise ValueError(f"{proposal} needs a normalised prior, and this one is not: take the prior as proposal")

    @abc.abstractmethod
    def __call__(
        self,
        key: Array,
        model: Model,
        params: Params,
        x: Array,
        proposal: Proposal | None = None,
        progress: Progress | None = None,
    ) -> tuple[Evidence, Effort]:
        """Estimates for data x [N, *data_shape], and their cost; `proposal` as in `log_evidence`.

        `progress` is called after each batch.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceEstimator(Estimator):
    """Importance sampling.

    Attributes:
      num_samples: proposals for each datum.
      final_num_samples: proposals for each datum in the last evaluation of a run.
      chunk_size: latents in memory at once.
      batch_size: data at once; with the prior as proposal, all data are taken at once and share its draws.
    """

    num_samples: int = setting(1000, low=2)
    final_num_samples: int = setting(10_000, low=2)
    chunk_size: int = setting(20_000, low=1)
    batch_size: int = setting(100, low=1)

    @property
    def num_evaluations(self) -> int:
        return self.num_samples

    def __call__(
        self,
        key: Array,
        model: Model,
        params: Params,
        x: Array,
        proposal: Proposal | None = None,
        progress: Progress | None = None,
    ) -> tuple[Evidence, Effort]:
        options = {"num_samples": self.num_samples, "chunk_size": self.chunk_size}
        size = None if is_prior(proposal) else self.batch_size
        evidence = _in_batches(size, progress, key, model, params, x, "importance", proposal=proposal, **options)
        effort = 0 if proposal is None else num_fits(proposal) * proposal.num_gradients(model)
        return evidence, Effort("importance", {"num_samples": self.num_samples}, effort)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AIS(Estimator):
    """Annealed importance sampling.

    Attributes:
      num_chains: chains for each datum.
      num_temperatures: temperatures from the proposal to the posterior.
      final_num_temperatures: temperatures in the last evaluation of a run.
      batch_size: data at once.
    """

    num_chains: int = setting(32, low=2)
    num_temperatures: int = setting(50, low=2)
    final_num_temperatures: int = setting(500, low=2)
    batch_size: int = setting(100, low=1)

    @property
    def num_evaluations(self) -> int:
        return self.num_chains * self.num_temperatures

    def __call__(
        self,
        key: Array,
        model: Model,
        params: Params,
        x: Array,
        proposal: Proposal | None = None,
        progress: Progress | None = None,
    ) -> tuple[Evidence, Effort]:
        options = {"num_chains": self.num_chains, "num_temperatures": self.num_temperatures}
        size = self.batch_size
        evidence = _in_batches(size, progress, key, model, params, x, "ais", proposal=proposal, **options)
        fits = num_fits(proposal)
        # With bounded latents annealing starts from the prior.
        is_fitted = proposal is not None and model.prior.bounds is None
        fit = fits * proposal.num_gradients(model) if proposal is not None and is_fitted else 0
        return evidence, Effort("ais", options, fit + _annealing(self.num_chains, self.num_temperatures, fits))


def _in_batches(
    size: int | None,
    progress: Progress | None,
    key: Array,
    model: Model,
    params: Params,
    x: Array,
    method: Method,
    **options: Any,
) -> Evidence:
    """`log_evidence` of data [N, *data_shape], `size` at once (None: all); the errors of batches are independent."""
    if size is None:
        return log_evidence(key, model, params, x, method, **options)
    parts = []
    for i, (rows, count) in enumerate(filled_batches(len(x), min(size, len(x)))):
        part = log_evidence(jax.random.fold_in(key, i), model, params, x[jnp.asarray(rows)], method, **options)
        parts.append(Evidence(*(leaf[:count] if leaf.ndim else leaf for leaf in part)))
        if progress is not None:
            jax.block_until_ready(part)
            progress(min((i + 1) * size, len(x)), len(x))
    value, error, _, ess, are_bounds = (
        jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]) for leaves in zip(*parts, strict=True)
    )
    return Evidence(value, error, jnp.sqrt(jnp.sum(error**2)) / len(x), ess, are_bounds)


def _annealing(num_chains: int, num_temperatures: int, fits: int) -> int:
    return (num_chains + fits) * num_temperatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto(Estimator):
    """Importance sampling from a proposal, then annealing of the data for which it does not suffice.

    Data whose effective sample sizes are too small are annealed, each time with twice as many temperatures, until one
    suffices. Meanwhile a datum takes its newest bound: the larger of two lower bounds would not be one in expectation.

    Attributes:
      num_samples: proposals for each datum.
      num_chains: annealed chains for each datum.
      budget: gradient evaluations for each annealed datum, without those that fit the proposal.
      final_budget: `budget` in the last evaluation of a run.
      chunk_size: latents in memory at once.
      batch_size: data at once.
    """

    num_samples: int = setting(1000, low=2)
    num_chains: int = setting(32, low=2)
    budget: int = setting(0, low=0)
    final_budget: int = setting(5000, low=0)
    chunk_size: int = setting(20_000, low=1)
    batch_size: int = setting(100, low=1)

    @property
    def num_evaluations(self) -> int:
        return self.num_samples + self.budget

    def check(self, prior: Prior, proposal: Proposal) -> None:
        super().check(prior, proposal)
        if not prior.is_normalized:
            raise ValueError("kind='auto' needs a normalised prior, and this one is not: take 'importance' or 'ais'")

    @property
    def tried_first(self) -> ImportanceEstimator:
        return ImportanceEstimator(num_samples=self.num_samples, chunk_size=self.chunk_size, batch_size=self.batch_size)

    def __call__(
        self,
        key: Array,
        model: Model,
        params: Params,
        x: Array,
        proposal: Proposal | None = None,
        progress: Progress | None = None,
    ) -> tuple[Evidence, Effort]:
        key, key_first = jax.random.split(key)
        evidence, effort = self.tried_first(key_first, model, params, x, proposal, progress)
        is_loose = np.array(is_bound(evidence.ess, self.num_samples))
        was_annealed = np.zeros(len(x), bool)
        settings, num_gradients = dict(effort.settings), effort.num_gradients * len(x)
        for num_temperatures in self._ladder_lengths(num_fits(proposal)):
            if not is_loose.any():
                break
            annealed = AIS(num_chains=self.num_chains, num_temperatures=num_temperatures, batch_size=self.batch_size)
            rows = np.flatnonzero(is_loose)
            again_key = jax.random.fold_in(key, num_temperatures)
            again, again_effort = annealed(again_key, model, params, x[self._padded(rows)], proposal, progress)
            num_gradients += again_effort.num_gradients * len(rows)
            # Keep the old estimate where the new one is not finite.
            taken = np.flatnonzero(jnp.isfinite(again.value[: len(rows)]) | ~jnp.isfinite(evidence.value[rows]))
            if len(taken):
                rows = rows[taken]
                was_annealed[rows] = True
                is_loose[rows] = is_bound(again.ess[taken], self.num_chains)
                named = ("value", "standard_error", "ess", "is_bound")
                new = {name: getattr(evidence, name).at[rows].set(getattr(again, name)[taken]) for name in named}
                evidence, settings = evidence._replace(**new), settings | again_effort.settings
        if was_annealed.any():
            first, later = (jnp.where(mask, evidence.standard_error, 0) for mask in (~was_annealed, was_annealed))
            # Errors of draws of the prior, which data share, may all have one sign.
            variance = jnp.sum(later**2) + (jnp.sum(first) ** 2 if is_prior(proposal) else jnp.sum(first**2))
            evidence = evidence._replace(mean_standard_error=jnp.sqrt(variance) / len(x))
        if was_annealed.all():
            del settings["num_samples"]
        elif was_annealed.any():
            settings["num_annealed"] = int(was_annealed.sum())
        method = "ais" if was_annealed.all() else "importance and ais" if was_annealed.any() else "importance"
        return evidence, Effort(method, settings, round(num_gradients / len(x)))

    def _ladder_lengths(self, fits: int) -> Iterator[int]:
        """Numbers of temperatures, each twice the one before, as far as the budget goes."""
        spent, num = 0, _FIRST_TEMPERATURES
        while (spent := spent + _annealing(self.num_chains, num, fits)) <= self.budget:
            yield num
            num *= 2

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """Rows repeated up to a power of two, or to a full batch, so that few programs are compiled."""
        size = min(self.batch_size, 1 << (len(rows) - 1).bit_length())
        return rows[np.arange(max(size, len(rows))) % len(rows)]
