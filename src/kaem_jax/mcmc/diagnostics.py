"""Diagnostics of chains: effective sample size, R-hat, warnings as values."""

import enum
from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

Traces = TypeVar("Traces", Array, np.ndarray)


class DrawWarning(enum.IntFlag):
    """Reasons not to trust draws. The `warning` of a result is the sum of the flags that apply."""

    R_HAT = 1
    NO_ROUND_TRIPS = 2
    REJECTED = 4
    FEW_DRAWS = 8
    WIDE_EVIDENCE = 16


_EXPLANATIONS = {
    DrawWarning.R_HAT: "the first and the second half of a chain disagree, or are too short to compare (split R-hat is "
    "not below 1.1): take more steps",
    DrawWarning.NO_ROUND_TRIPS: "no replica went from the prior's end of the ladder to the posterior and back: take "
    "more rounds or more rungs",
    DrawWarning.REJECTED: "less than a tenth of the proposals is accepted: take a smaller step size, or let it adapt",
    DrawWarning.FEW_DRAWS: "some coordinate has fewer effective draws than were asked for: take more rounds",
    DrawWarning.WIDE_EVIDENCE: "the error of log Z is larger than was asked for: take more rounds or more rungs",
}


def explain_warning(warning: ArrayLike) -> list[str]:
    """One sentence for each flag that is set anywhere in `warning`.

    Example:
      >>> kaem.mcmc.explain_warning(0)
      []
    """
    found = int(np.bitwise_or.reduce(np.asarray(warning, np.int32), axis=None))
    return [text for flag, text in _EXPLANATIONS.items() if found & flag]


def warn_if(conditions: Mapping[DrawWarning, Array]) -> Array:
    """The sum of the flags whose condition [...] holds, int32 [...]."""
    return sum((jnp.where(holds, jnp.int32(flag), 0) for flag, holds in conditions.items()), start=jnp.int32(0))


def effective_sample_size(trace: Traces, *, pooled: bool = False) -> Traces:
    """N / (1 + 2 sum of autocorrelations), truncated by Geyer's initial monotone sequence (1992).

    Args:
      trace: [N, ...], N >= 4, a JAX or NumPy array with one stationary chain per trailing entry.
      pooled: whether the second axis holds C chains of one target, [N, C, ...]. Differences between their means then
        count as correlation at every lag (Gelman et al., 2013, section 11.5).

    Returns:
      [...], at most N, or C N if pooled; the maximum for a constant trace.
    """
    if isinstance(trace, np.ndarray):
        return _effective_sample_size(trace, pooled)
    return _compiled_effective_sample_size(trace, pooled)


def _effective_sample_size(trace: Traces, pooled: bool) -> Traces:
    xp = trace.__array_namespace__()
    num = trace.shape[0]
    total = num * trace.shape[1] if pooled else num
    centred = trace - xp.mean(trace, axis=0)
    spectrum = xp.fft.rfft(centred, n=2 * num, axis=0)
    covariance = xp.fft.irfft(xp.abs(spectrum) ** 2, n=2 * num, axis=0)[:num] / num
    # Rounding of the mean may leave a variance for a constant trace, which must count as 0.
    variance = xp.where(covariance[0] > _variance_of_rounding(trace, axis=0), covariance[0], 0)
    if pooled:
        between = xp.var(xp.mean(trace, axis=0), axis=0, ddof=min(1, trace.shape[1] - 1))
        variance, covariance = xp.mean(variance, axis=0) + between, xp.mean(covariance, axis=1) + between
    correlation = covariance / xp.where(variance > 0, variance, 1)
    pairs = correlation[0 : num - 1 : 2] + correlation[1:num:2]
    positive = xp.cumprod((pairs > 0).astype(trace.dtype), axis=0)
    # The sums of pairs decrease for a reversible chain: an increase is noise and is removed.
    decreasing = np.minimum.accumulate(pairs) if xp is np else jax.lax.cummin(pairs, axis=0)
    time = -1 + 2 * xp.sum(decreasing * positive, axis=0)
    return xp.where(variance > 0, total / xp.maximum(time, 1), total)


# Eager operations would be compiled one by one.
_compiled_effective_sample_size = jax.jit(_effective_sample_size, static_argnums=1)


def split_r_hat(trace: Traces) -> Traces:
    """Split R-hat of each chain (Gelman et al., 2013, section 11.4).

    Args:
      trace: [N, ...], one chain per trailing entry.

    Returns:
      [...], near 1 if the halves agree; NaN for a constant trace or N < 4.
    """
    xp = trace.__array_namespace__()
    size = trace.shape[0] // 2
    if size < 2:
        return xp.full(trace.shape[1:], xp.nan, trace.dtype)
    return r_hat(xp.stack([trace[:size], trace[-size:]], axis=1))


def r_hat(traces: Traces) -> Traces:
    """R-hat of several chains of one target (Gelman & Rubin, 1992).

    Args:
      traces: [N, C, ...], N >= 2 draws of C >= 2 chains, a JAX or NumPy array.

    Returns:
      [...], near 1 if the chains agree. If no chain moved: infinite for different values, NaN for equal ones.
    """
    xp = traces.__array_namespace__()
    size = traces.shape[0]
    within = xp.mean(xp.var(traces, axis=0, ddof=1), axis=0)
    rounding = _variance_of_rounding(traces, axis=(0, 1))
    between = xp.var(xp.mean(traces, axis=0), axis=0, ddof=1)
    ratio = xp.sqrt((size - 1) / size + between / xp.maximum(within, xp.finfo(traces.dtype).tiny))
    stuck = xp.where(between > rounding, xp.inf, xp.nan)
    return xp.where(within > rounding, ratio, stuck)


def _variance_of_rounding(traces: Traces, axis: int | tuple[int, ...]) -> Traces:
    """Bound on the variance that rounding gives a chain that never moved."""
    xp = traces.__array_namespace__()
    return xp.square(8 * xp.finfo(traces.dtype).eps * xp.max(xp.abs(traces), axis=axis))
