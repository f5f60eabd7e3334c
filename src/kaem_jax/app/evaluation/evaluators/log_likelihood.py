"""Held-out log-likelihood."""

import datetime
import math
import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.data import Table
from kaem_jax.app.evaluation.evaluators import Evaluator, HeldOut, Numbers
from kaem_jax.app.runs.load import Run
from kaem_jax.inference.evidence import Estimator, mean_is_bound
from kaem_jax.inference.proposals import Proposal
from kaem_jax.jax_utils.processes import say
from kaem_jax.likelihoods import Bernoulli, Categorical, DiscretizedLogistic
from kaem_jax.model import Model

_QUIET = 10.0  # seconds between two lines
_ENOUGH = 40  # effective proposals: a bound with so many has another cause than too few of them


class LogLikelihood(Evaluator):
    """Held-out log-likelihood, by the estimator of the final evaluation."""

    def evaluate(self, on: HeldOut) -> dict[str, Numbers]:
        settings = on.run.config
        of_pixels = on.dataset.held_out.dtype == np.uint8
        estimator, proposal = settings.evaluation.estimator.final, settings.proposal()
        return {"log_likelihood": evaluate(on.keys.likelihood, on.run, on.x, estimator, proposal, of_pixels)}

    def verdict(self, numbers: Mapping[str, Any]) -> str:
        count = numbers.get("num_chains", numbers.get("num_samples"))
        of = f" of {count:,}" if count and "num_annealed" not in numbers else ""  # with both, the ESS is of either
        ess = f"{numbers['ess']:.3g}{of}"
        if not numbers["is_bound"]:
            few = f"; for {num:,} data only a bound" if (num := numbers.get("num_bounds", 0)) else ""
            return f"an estimate: ESS {ess}{few}"
        if numbers["ess_min"] >= max(_ENOUGH, 0.05 * (count or 0)):
            return f"a bound whatever its ESS ({ess}): by its method, or since its proposal has one mode"
        few = f"{numbers['num_bounds']:,} of {numbers['num_data']:,} data, more than 5 %, have a low ESS (median {ess})"
        return f"a bound: {few}; the true value is better"


def evaluate(
    key: Array, run: Run, x: Array, estimator: Estimator, proposal: Proposal, of_pixels: bool = False
) -> dict[str, Any]:
    """Mean log-likelihood of held-out data x [N, *data_shape], in nats per datum and in bits per dimension.

    The same key makes successive values comparable. `of_pixels`: x are pixels of 256 levels, scaled to [0, 1].
    """
    started = time.perf_counter()
    estimate, effort = estimator(key, run.model, run.params, x, proposal, _Reporter())
    estimate = jax.device_get(estimate)  # a statistic in NumPy needs no program
    nats, error = float(np.mean(estimate.value)), float(estimate.mean_standard_error)
    result: dict[str, Any] = {"nats": nats, "standard_error": error}
    if isinstance(run.model.likelihood, Categorical):
        result["nats_per_token"] = -nats * len(x) / float(jnp.sum(run.model.likelihood.is_read(x)))
    elif not isinstance(run.form, Table):
        result |= _bits(run.model, nats, error, of_pixels)
    return result | {
        "ess": float(np.median(estimate.ess)),
        "ess_min": float(np.min(estimate.ess)),
        "is_bound": bool(mean_is_bound(estimate.is_bound)),
        "num_bounds": int(np.sum(estimate.is_bound)),
        "method": effort.method,
        **effort.settings,
        "num_gradients": effort.num_gradients,
        "effort_id": zlib.crc32(repr((estimator, proposal)).encode()),
        "num_data": len(x),
        "seconds": round(time.perf_counter() - started, 2),
    }


class _Reporter:
    """Says now and then how many data are done, and how long the others will take."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done < of and now - self._said > _QUIET:
            left = datetime.timedelta(seconds=round((now - self._started) / done * (of - done)))
            say(f"log-likelihood of {done:,} of {of:,} data  ETA {left}")
            self._said = now


def _bits(model: Model, nats: float, error: float, of_pixels: bool) -> dict[str, float]:
    """Bits per dimension of densities and, for pixels, of probabilities of levels."""
    size = math.prod(model.data_shape) * math.log(2)
    bits = {"bits_per_dimension": -nats / size}
    if isinstance(model.likelihood, DiscretizedLogistic):  # the nats are of levels already
        if model.likelihood.levels == 256:
            bits["bits_per_dimension_of_256_levels"] = bits["bits_per_dimension"]
    elif of_pixels and not isinstance(model.likelihood, Bernoulli):
        # Each level stands for a cell of width 1 / 255. Discrete models report this, with dequantisation noise.
        bits["bits_per_dimension_of_256_levels"] = math.log2(255) - nats / size
    return bits | {"bits_standard_error": error / size}
