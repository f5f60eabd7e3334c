"""Settings of evaluation: one dataclass for each way to estimate held-out likelihoods."""

import dataclasses
from typing import Any, Literal

from kaem_jax.settings.fields import bounded

__all__ = ["AnnealedEvaluation", "AutoEvaluation", "EvaluationConfig", "ImportanceEvaluation"]

_CHUNK_SIZE = 20_000  # latents
SampleMetric = Literal["copying", "density_coverage", "diversity", "fid", "kid", "precision_recall"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluation:
    method: str
    # estimates of held-out log-likelihoods and posterior draws start at draws of Laplace approximations, of the encoder
    # that the posterior has, or of the prior
    reference: Literal["encoder", "laplace", "prior"] = "laplace"
    every_steps: int = bounded(500, low=1)
    # reconstructions are posterior means of the first held-out data, from chains of `posterior_steps` that start at the
    # reference; if that is the prior, from the sampler of training. With C chains their Monte Carlo variance is 1 / C
    # of the posterior's
    num_reconstructions: int = bounded(200, low=1)
    posterior_steps: int = bounded(100, low=1)
    posterior_chains: int = bounded(8, low=1)
    # comparison of samples with held-out images during training; 0: only by `kaem evaluate`
    samples_every_steps: int = bounded(0, low=0)
    sample_metrics: tuple[SampleMetric, ...] = ("fid", "kid")
    num_images: int = bounded(2000, low=20)
    features: str = "classifier"

    @property
    def latents_at_once(self) -> int:
        """How many latents importance sampling holds in memory: `chunk_size`, or its default for methods without it."""
        return getattr(self, "chunk_size", _CHUNK_SIZE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoEvaluation(_Evaluation):
    """Held-out log-likelihood by importance sampling; where its effective sample size says that this is not enough, by
    annealing with more and more temperatures, until it is or the budget of gradient evaluations is spent.

    Fields `final_*` are for the last evaluation.
    """

    method: Literal["auto"] = "auto"
    num_samples: int = bounded(1000, low=2)  # proposals for each datum
    num_chains: int = bounded(32, low=2)  # annealed chains for each datum
    budget: int = bounded(0, low=0)  # gradient evaluations for each datum
    final_budget: int = bounded(5000, low=0)
    chunk_size: int = bounded(_CHUNK_SIZE, low=1)
    batch_size: int = bounded(100, low=1)

    def options(self, final: bool) -> dict[str, Any]:
        """What the estimator of this method takes."""
        return {
            "num_samples": self.num_samples,
            "num_chains": self.num_chains,
            "budget": self.final_budget if final else self.budget,
            "chunk_size": self.chunk_size,
            "batch_size": self.batch_size,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceEvaluation(_Evaluation):
    """Held-out log-likelihood from proposals, in chunks."""

    method: Literal["importance"] = "importance"
    points: Literal["random", "sobol"] = "random"
    num_samples: int = bounded(1000, low=2)
    final_num_samples: int = bounded(10_000, low=2)
    chunk_size: int = bounded(_CHUNK_SIZE, low=1)
    batch_size: int = bounded(100, low=1)  # data at once; proposals of the prior are shared by all

    def options(self, final: bool) -> dict[str, Any]:
        """See `AutoEvaluation.options`."""
        return {
            "points": self.points,
            "num_samples": self.final_num_samples if final else self.num_samples,
            "chunk_size": self.chunk_size,
            "batch_size": self.batch_size,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedEvaluation(_Evaluation):
    """Held-out log-likelihood by annealed importance sampling, `batch_size` data at once."""

    method: Literal["ais"] = "ais"
    num_chains: int = bounded(32, low=2)
    num_temperatures: int = bounded(50, low=2)
    final_num_temperatures: int = bounded(500, low=2)
    batch_size: int = bounded(100, low=1)

    def options(self, final: bool) -> dict[str, Any]:
        """See `AutoEvaluation.options`."""
        return {
            "num_chains": self.num_chains,
            "num_temperatures": self.final_num_temperatures if final else self.num_temperatures,
            "batch_size": self.batch_size,
        }


EvaluationConfig = AnnealedEvaluation | AutoEvaluation | ImportanceEvaluation
