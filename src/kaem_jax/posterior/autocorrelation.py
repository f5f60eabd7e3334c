"""How many independent draws a chain is worth."""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["effective_sample_size"]


def effective_sample_size(trace: Array) -> Array:
    """N / (1 + 2 sum of autocorrelations) along the first axis, cut where a pair sums below 0 (Geyer, 1992).

    Args:
      trace: [N, ...], N >= 4, one stationary chain for each trailing entry.

    Returns:
      [...], at most N; N where the trace is constant.
    """
    num = trace.shape[0]
    centred = trace - jnp.mean(trace, axis=0)
    spectrum = jnp.fft.rfft(centred, n=2 * num, axis=0)
    covariance = jnp.fft.irfft(jnp.abs(spectrum) ** 2, n=2 * num, axis=0)[:num] / num
    variance = covariance[0]
    correlation = covariance / jnp.where(variance > 0, variance, 1)
    pairs = correlation[0 : num - 1 : 2] + correlation[1:num:2]
    positive = jnp.cumprod((pairs > 0).astype(trace.dtype), axis=0)
    # Pairs of a reversible chain decrease: noise that says otherwise is cut down.
    decreasing = jax.lax.cummin(pairs, axis=0)
    time = -1 + 2 * jnp.sum(decreasing * positive, axis=0)
    return jnp.where(variance > 0, num / jnp.maximum(time, 1), num)
