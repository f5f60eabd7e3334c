"""How far draws of chains can be trusted: effective sample size, split R-hat, warnings as values."""

import enum
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

__all__ = ["DrawWarning", "effective_sample_size", "explain_warning", "r_hat", "split_r_hat", "warn_if"]


class DrawWarning(enum.IntFlag):
    """Reasons not to trust draws; the `warning` of a result is the sum of those that hold."""

    R_HAT = 1
    NO_ROUND_TRIPS = 2
    REJECTED = 4


_EXPLANATIONS = {
    DrawWarning.R_HAT: "the first and the second half of a chain disagree, or are too short to compare (split R-hat is "
    "not below 1.1): take more steps",
    DrawWarning.NO_ROUND_TRIPS: "no replica went from the prior's end of the ladder to the posterior and back: take "
    "more rounds or more rungs",
    DrawWarning.REJECTED: "less than a tenth of the proposals is accepted: take a smaller step size, or let it adapt",
}


def explain_warning(warning: ArrayLike) -> list[str]:
    """Sentences for every flag that is set anywhere in the `warning` of a result; empty if no flag is set."""
    found = int(np.bitwise_or.reduce(np.asarray(warning, np.int32), axis=None))
    return [text for flag, text in _EXPLANATIONS.items() if found & flag]


def warn_if(conditions: Mapping[DrawWarning, Array]) -> Array:
    """The sum of the flags whose condition [...] holds: int32 [...]."""
    return sum((jnp.where(holds, jnp.int32(flag), 0) for flag, holds in conditions.items()), start=jnp.int32(0))


def effective_sample_size(trace: Array) -> Array:
    """N / (1 + 2 sum of autocorrelations) along the first axis, cut at a pair with a sum below 0 (Geyer, 1992).

    Args:
      trace: [N, ...], N >= 4, one stationary chain for each trailing entry.

    Returns:
      [...], at most N; N where the trace is constant.
    """
    num = trace.shape[0]
    centred = trace - jnp.mean(trace, axis=0)
    spectrum = jnp.fft.rfft(centred, n=2 * num, axis=0)
    covariance = jnp.fft.irfft(jnp.abs(spectrum) ** 2, n=2 * num, axis=0)[:num] / num
    # The mean of a constant trace may miss it by a rounding error, of which a constant would remain.
    variance = jnp.where(covariance[0] > _variance_of_rounding(trace, axis=0), covariance[0], 0)
    correlation = covariance / jnp.where(variance > 0, variance, 1)
    pairs = correlation[0 : num - 1 : 2] + correlation[1:num:2]
    positive = jnp.cumprod((pairs > 0).astype(trace.dtype), axis=0)
    # The sums of pairs decrease for a reversible chain: an increase is noise and is removed.
    decreasing = jax.lax.cummin(pairs, axis=0)
    time = -1 + 2 * jnp.sum(decreasing * positive, axis=0)
    return jnp.where(variance > 0, num / jnp.maximum(time, 1), num)


def split_r_hat(trace: Array) -> Array:
    """Split R-hat of each chain: its two halves count as two chains (Gelman et al., 2013, section 11.4).

    Args:
      trace: [N, ...], one chain for each trailing entry.

    Returns:
      [...], near 1 where the halves agree; NaN for a constant trace, which says nothing, and for N < 4.
    """
    size = trace.shape[0] // 2
    if size < 2:
        return jnp.full(trace.shape[1:], jnp.nan, trace.dtype)
    return r_hat(jnp.stack([trace[:size], trace[-size:]], axis=1))


def r_hat(traces: Array) -> Array:
    """R-hat of several chains with one target (Gelman & Rubin, 1992).

    Args:
      traces: [N, C, ...], N >= 2 draws of each of C >= 2 chains.

    Returns:
      [...], near 1 where the chains agree; infinite for chains that never moved from different values, NaN for those
      that never moved from one, which say nothing.
    """
    size = traces.shape[0]
    within = jnp.mean(jnp.var(traces, axis=0, ddof=1), axis=0)
    rounding = _variance_of_rounding(traces, axis=(0, 1))
    between = jnp.var(jnp.mean(traces, axis=0), axis=0, ddof=1)
    ratio = jnp.sqrt((size - 1) / size + between / jnp.maximum(within, jnp.finfo(traces.dtype).tiny))
    stuck = jnp.where(between > rounding, jnp.inf, jnp.nan)
    return jnp.where(within > rounding, ratio, stuck)


def _variance_of_rounding(traces: Array, axis: int | tuple[int, ...]) -> Array:
    """The variance that rounding may give a chain that never moved."""
    return jnp.square(8 * jnp.finfo(traces.dtype).eps * jnp.max(jnp.abs(traces), axis=axis))
