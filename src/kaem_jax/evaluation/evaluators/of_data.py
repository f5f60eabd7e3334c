"""Metrics of held-out data: likelihood, reconstructions, active latents."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.data import Field, Table, Text
from kaem_jax.devices.batches import in_batches
from kaem_jax.evaluation.evaluators.base import Numbers
from kaem_jax.evaluation.metrics.clusters import agreement, cluster_probabilities
from kaem_jax.evaluation.metrics.held_out import held_out_log_likelihood
from kaem_jax.evaluation.metrics.latents import activity
from kaem_jax.evaluation.metrics.mixing import r_hat_over_starts
from kaem_jax.evaluation.metrics.reconstruction import reconstruct
from kaem_jax.evaluation.metrics.text import share_recovered
from kaem_jax.inference.evidence import Estimator
from kaem_jax.inference.proposals import Proposal
from kaem_jax.likelihoods import Bernoulli, Categorical, DiscretizedLogistic
from kaem_jax.mcmc import principal_frame
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.runs.run import Run

__all__ = ["ActiveLatents", "Clusters", "HeldOutLikelihood", "Mixing", "Reconstruction"]

_ACTIVE = 0.01
_NUM_MIXING, _MIXING_ROUNDS = 32, 100
_FEW_EXCHANGES = 0.5
_BATCH = 100  # data whose clusters are asked for at once


@dataclasses.dataclass(frozen=True)
class HeldOutLikelihood:
    """Mean log-likelihood of held-out data, in nats per datum and in bits per dimension.

    Attributes:
      key: a PRNG key; the same key makes successive values comparable.
      x: [N, *data_shape] held-out data as the model sees them.
      estimator: the estimator of log p(x).
      proposal: from which it starts.
      of_pixels: whether the data are pixels of 256 levels, scaled to [0, 1].
    """

    key: Array
    x: Array
    estimator: Estimator
    proposal: Proposal
    of_pixels: bool = False

    def run(self, run: Run) -> Numbers:
        started = time.perf_counter()
        values, effort = held_out_log_likelihood(self.key, run.model, run.params, self.x, self.estimator, self.proposal)
        nats, error = float(values["log_likelihood"]), float(values["log_likelihood_standard_error"])
        result: dict[str, Any] = {"nats": nats, "standard_error": error}
        if isinstance(run.model.likelihood, Categorical):
            result["nats_per_token"] = -nats * len(self.x) / float(jnp.sum(run.model.likelihood.is_read(self.x)))
        else:
            result |= {} if isinstance(run.form, Table) else self._bits(run, nats, error)
        result |= {
            "ess": float(values["ess"]),
            "ess_min": float(values["ess_min"]),
            "is_bound": bool(values["is_bound"]),
            "num_bounds": int(values["num_bounds"]),
            "method": effort.method,
            **effort.settings,
            "num_gradients": effort.num_gradients,
            "num_data": len(self.x),
            "seconds": round(time.perf_counter() - started, 2),
        }
        return {"log_likelihood": result}

    def _bits(self, run: Run, nats: float, error: float) -> dict[str, float]:
        """Bits per dimension, as densities and, of pixels, as probabilities of levels."""
        size = math.prod(run.model.data_shape) * math.log(2)
        bits = {"bits_per_dimension": -nats / size}
        if isinstance(run.model.likelihood, DiscretizedLogistic):  # the nats are of levels already
            if run.model.likelihood.levels == 256:
                bits["bits_per_dimension_of_256_levels"] = bits["bits_per_dimension"]
        elif self.of_pixels and not isinstance(run.model.likelihood, Bernoulli):
            # Each level stands for a cell of width 1 / 255, the distance between levels. This is what discrete models
            # report, but without dequantisation noise.
            bits["bits_per_dimension_of_256_levels"] = math.log2(255) - nats / size
        return bits | {"bits_standard_error": error / size}


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of posterior means, each against its own datum of x [B, *data_shape].

    Of texts, it is the share of tokens that the latents of a posterior draw make right.
    """

    key: Array
    x: Array

    def run(self, run: Run) -> Numbers:
        if isinstance(run.form, Text):
            _, share = share_recovered(self.key, run.model, run.params, self.x, run.posterior)
            return {"reconstruction": {"share_of_tokens": float(share), "num_data": len(self.x)}}
        again, error = reconstruct(self.key, run.model, run.params, self.x, run.posterior)
        settings = {"num_data": len(self.x)}
        for name in ("num_steps", "num_chains"):  # of samplers with chains
            if (value := getattr(run.posterior.sampler, name, None)) is not None:
                settings[name.replace("num", "posterior")] = value
        numbers: dict[str, Any] = {"mean_squared_error": float(error)}
        if isinstance(run.form, Field):
            numbers["relative_l2"] = _relative_l2(
                run.form.decode(np.asarray(again)), run.form.decode(np.asarray(self.x))
            )
        return {"reconstruction": numbers | settings}


def _relative_l2(ours: np.ndarray, real: np.ndarray) -> float:
    """Mean over fields of |ours - real| / |real|, in the units of the data; fields that are 0 have none."""
    axes = tuple(range(1, real.ndim))
    sizes = np.sqrt(np.sum(real**2, axis=axes))
    is_any = sizes > 1e-6 * sizes.max()
    return float(np.mean(np.sqrt(np.sum((ours - real) ** 2, axis=axes))[is_any] / sizes[is_any]))


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Whether chains from different starts agree for data x [B, *data_shape]; for a ladder, also its barrier.

    Attributes:
      num_steps: of the chains.
    """

    key: Array
    x: Array
    num_steps: int = 200

    def run(self, run: Run) -> Numbers:
        x = self.x[:_NUM_MIXING]
        key_starts, key_ladder = jax.random.split(self.key)
        metric = getattr(run.training_posterior.state, "metric", None)
        frame = None if metric is None else principal_frame(metric)
        found = r_hat_over_starts(key_starts, run.model, run.params, x, frame=frame, num_steps=self.num_steps)
        result = {
            "r_hat": float(jnp.nanmedian(found)),
            "share_of_data_below_1.1": float(jnp.mean(found < 1.1)),
            "num_data": len(x),
            "steps": self.num_steps,
            "preconditioned": frame is not None,
        }
        if (num_rungs := run.training_posterior.sampler.num_rungs) > 1:
            sampler: Any = run.training_posterior.sampler
            long = dataclasses.replace(sampler, num_steps=_MIXING_ROUNDS * sampler.steps_per_round)
            posterior = dataclasses.replace(run.training_posterior, sampler=long)
            ladder = jax.jit(lambda key, params, x, posterior: posterior.draw(key, run.model, params, x).metrics)
            found = ladder(key_ladder, run.params, x, posterior)
            barrier = float(found["barrier"])
            result |= {
                "barrier": barrier,
                "rungs": num_rungs,
                "rungs_that_suit": max(2, round(2 * barrier)),
                # A pair adds its share of rejections to the barrier, at most 1: gaps count too little.
                "is_bound": float(found["swap_acceptance_min"]) < _FEW_EXCHANGES,
            }
        return {"mixing": result}


@dataclasses.dataclass(frozen=True)
class Clusters:
    """How many clusters the data use, and how these agree with labels.

    Attributes:
      x: [B, *data_shape].
      labels: gives int [B'] labels at positions [B'] of x; None where there are none.
    """

    key: Array
    x: Array
    labels: Callable[[np.ndarray], np.ndarray] | None

    def run(self, run: Run) -> Numbers:
        if not isinstance(run.model.prior, ClusteredPrior):
            return {"clusters": {"reason": f"a {type(run.model.prior).__name__} has no clusters"}}

        def shares(key: Array, x: Array) -> Array:
            return cluster_probabilities(key, run.model, run.params, x, run.posterior)

        found = np.concatenate(list(in_batches(shares, self.key, self.x, _BATCH)))
        share = found.mean(axis=0)
        result: dict[str, Any] = {
            "effective_number": float(np.exp(-np.sum(share * np.log(np.maximum(share, 1e-30))))),
            "clusters": found.shape[1],
            "num_data": len(self.x),
        }
        if self.labels is not None:
            result |= agreement(found, self.labels(np.arange(len(self.x))))
        return {"clusters": result}


@dataclasses.dataclass(frozen=True)
class ActiveLatents:
    """Number of decoder inputs of whose prior variance the data x [B, *data_shape] decide more than 1 %.

    An input counts if its share lies more than two standard errors above 1 %: few chains make shares noisy.
    """

    key: Array
    x: Array

    def run(self, run: Run) -> Numbers:
        if len(self.x) < 2:
            return {"active_latents": {"reason": f"{len(self.x)} held-out datum has no variance over data"}}
        found = jax.device_get(activity(self.key, run.model, run.params, self.x, run.posterior))
        result = {
            "count": int(np.sum(found.share - 2 * found.standard_error > _ACTIVE)),
            "of": len(found.share),
            "threshold": _ACTIVE,
            "num_data": len(self.x),
            "share_of_variance_that_data_decide": [round(float(share), 4) for share in found.share],
            "standard_error_of_shares": [round(float(error), 4) for error in found.standard_error],
        }
        return {"active_latents": result}
