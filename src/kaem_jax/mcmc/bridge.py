"""Log Z along a ladder by Bennett's acceptance ratio, with an error that counts correlated rounds."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from kaem_jax.mcmc.diagnostics import effective_sample_size

__all__ = ["bridge_log_z"]


def bridge_log_z(log_likelihood: np.ndarray, betas: np.ndarray) -> tuple[float, float]:
    """Log Z_1 - log Z_0 from C populations on one ladder, and its standard error.

    Each pair of neighbours uses Bennett's acceptance ratio (1976), the bridge of least variance. Steppingstone would
    use draws of the hotter rung only, whose weights exp(Delta l) have no bound. The error is that of the mean over
    rounds of the estimate's influence function. It includes correlations between rungs and between rounds, and
    differences between populations, but not a mode that no chain has found.

    Args:
      log_likelihood: [R, T, C] nats, by round, rung and population; R >= 4 and T >= 2.
      betas: [T].

    Returns:
      Both in nats. The error is infinite if neighbours do not overlap at all, or if there are NaN.
    """
    trace = np.asarray(log_likelihood, np.float64)
    width = np.diff(np.asarray(betas, np.float64))[:, None]
    up, down = width * trace[:, :-1], width * trace[:, 1:]
    if np.isnan(trace).any():
        return np.nan, np.inf
    gain = np.array([_root(up[:, k], down[:, k]) for k in range(len(width))])[:, None]
    hot, cold = expit(up - gain), expit(gain - down)  # [R, T-1, C]
    slope = np.mean(hot * (1 - hot) + cold * (1 - cold), axis=(0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        influence = np.sum((hot - cold) / slope[:, None], axis=1)  # [R, C]
    if not np.isfinite(influence).all():
        return float(np.sum(gain)), np.inf
    return float(np.sum(gain)), float(np.std(influence) / np.sqrt(effective_sample_size(influence, pooled=True)))


def _root(up: np.ndarray, down: np.ndarray) -> float:
    """The c at which expit(up - c) and expit(c - down) have equal means over rounds and populations [R, C]."""
    both = np.concatenate([up, down])
    finite = both[np.isfinite(both)]
    excess = lambda c: np.mean(expit(up - c)) - np.mean(expit(c - down))  # noqa: E731
    return brentq(excess, np.min(finite) - 1, np.max(finite) + 1)
