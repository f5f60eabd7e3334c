"""Log Z along a ladder by Bennett's acceptance ratio, with an error that counts correlated rounds."""

import numpy as np

from kaem_jax.mcmc.diagnostics import effective_sample_size

__all__ = ["bridge_log_z"]

_NUM_ITERATIONS = 100  # of a bracketed Newton search, which mostly takes 5


def bridge_log_z(log_likelihood: np.ndarray, betas: np.ndarray) -> tuple[float, float]:
    """Log Z_1 - log Z_0 from C populations on one ladder, and its standard error.

    Between neighbours it is Bennett's acceptance ratio (1976), the bridge of least variance: steppingstone uses the
    draws of the hotter rung only, whose weights exp(Delta l) have no bound. The error is that of the mean of the
    estimate's influence function, round by round, so that it counts how rungs go together, how long rounds remember
    and how populations differ. None of these sees a mode that no chain has found.

    Args:
      log_likelihood: [R, T, C] nats, by round, rung and population; R >= 4 and T >= 2.
      betas: [T].

    Returns:
      Both in nats. The error is infinite where neighbours do not overlap at all.
    """
    trace = np.asarray(log_likelihood, np.float64)
    width = np.diff(np.asarray(betas, np.float64))[:, None]
    up, down = width * trace[:, :-1], width * trace[:, 1:]
    gain = _root(up, down)[:, None]
    hot, cold = _sigmoid(up - gain), _sigmoid(gain - down)  # [R, T-1, C]
    slope = np.mean(hot * (1 - hot) + cold * (1 - cold), axis=(0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        influence = np.sum((hot - cold) / slope[:, None], axis=1)  # [R, C]
    if not np.isfinite(influence).all():
        return float(np.sum(gain)), np.inf
    return float(np.sum(gain)), float(np.std(influence) / np.sqrt(effective_sample_size(influence, pooled=True)))


def _root(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The c [T-1] at which sigmoid(up - c) and sigmoid(c - down) have equal means over rounds and populations."""
    finite = [np.where(np.isfinite(values), values, np.nan) for values in (up, down)]
    low = np.nanmin(finite, axis=(0, 1, 3)) - 1
    high = np.nanmax(finite, axis=(0, 1, 3)) + 1
    c = (low + high) / 2
    for _ in range(_NUM_ITERATIONS):
        hot, cold = _sigmoid(up - c[:, None]), _sigmoid(c[:, None] - down)
        excess = np.mean(hot - cold, axis=(0, 2))
        low, high = np.where(excess > 0, c, low), np.where(excess < 0, c, high)
        slope = np.mean(hot * (1 - hot) + cold * (1 - cold), axis=(0, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = c + excess / slope
        moved = np.where((newton > low) & (newton < high), newton, np.where(excess == 0, c, (low + high) / 2))
        if np.max(np.abs(moved - c)) < 1e-9:
            break
        c = moved
    return moved


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))
