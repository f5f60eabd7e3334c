"""A reference that fits itself: a mixture of the given one and of normals at the modes of the target."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.transforms import STATIC
from kaem_jax.mcmc.modes import Modes
from kaem_jax.mcmc.target import Rows, released

_WIDE_SHARE = 0.1  # of the given reference
_INFLATION = 1.2  # of covariances: a reference that is too narrow costs more than one that is too wide
_FEWEST = 20  # draws of a mode from which its covariance is estimated, if they fit better than its curvature


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FittedReference:
    """sum_k w_k N(mean_k, L_k L_k') with the share 1 - sum w for the density that was given.

    Attributes:
      wide: that density, `held`.
      log_weights: [1 + K], the first one of `wide`.
      mean: [K, D].
      factor, inverse: [K, D, D], L_k and its inverse.
      rows: how positions become rows.
    """

    wide: Any
    log_weights: Array
    mean: Array
    factor: Array
    inverse: Array
    rows: Rows = dataclasses.field(metadata=STATIC)

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Any:
        key_which, key_wide, key_normal = jax.random.split(key, 3)
        which = jax.random.categorical(key_which, self.log_weights, shape=shape)[..., None]
        rows = self.rows.flat(released(self.wide).sample(key_wide, shape))
        noise = jax.random.normal(key_normal, rows.shape, rows.dtype)
        for k in range(len(self.mean)):
            rows = jnp.where(which == k + 1, self.mean[k] + noise @ self.factor[k].T, rows)
        return self.rows.tree(rows)

    def log_prob(self, z: Any) -> Array:
        return jax.nn.logsumexp(self.log_parts(z))

    def shares(self, draws: Any) -> np.ndarray:
        """Shares of draws, leaves [C, N, ...], that are nearest to each component, [1 + K]."""
        return np.bincount(np.ravel(nearest := _nearest(self, draws)), minlength=len(self.log_weights)) / nearest.size

    def log_parts(self, z: Any) -> Array:
        """Log-densities of components with their weights, [1 + K]."""
        row = self.rows.flat(z)
        noise = jnp.einsum("kij,kj->ki", self.inverse, row - self.mean)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.inverse, axis1=1, axis2=2)), axis=1)
        normal = log_det - 0.5 * jnp.sum(noise**2, axis=1) - 0.5 * self.rows.size * math.log(2 * math.pi)
        parts = jnp.concatenate([released(self.wide).log_prob(z)[None], normal])
        return self.log_weights + parts


@jax.jit
def _nearest(reference: FittedReference, draws: Any) -> Array:
    return jnp.argmax(jax.vmap(jax.vmap(reference.log_parts))(draws), axis=-1)


def fit_reference(wide: Any, rows: Rows, modes: Modes, draws: np.ndarray) -> FittedReference:
    """A component for each mode, from its own draws among `draws` [N, D] or from its curvature.

    Weights are halfway between shares of draws and Laplace's masses: draws may have missed a mode, and Laplace's
    approximation may be wrong.
    """
    mean, covariance = modes.position.copy(), modes.covariance.copy()
    log_density = np.stack([_log_normal(draws, *mode) for mode in zip(mean, covariance, strict=True)])
    owner = np.argmax(log_density + modes.log_mass[:, None], axis=0)
    for k in range(len(mean)):
        own = draws[owner == k]
        if len(own) >= _FEWEST:
            mean[k], covariance[k] = _better(own, mean[k], covariance[k])
    shares = np.bincount(owner, minlength=len(mean)) / len(draws)
    masses = np.exp(modes.log_mass - np.logaddexp.reduce(modes.log_mass))
    weights = np.concatenate([[_WIDE_SHARE], (1 - _WIDE_SHARE) * 0.5 * (shares + masses)])
    factor = np.linalg.cholesky(_INFLATION * covariance)
    inverse = np.linalg.inv(factor)
    log_weights = np.log(np.maximum(weights, 1e-6))
    logs, means, factors, inverses = (jnp.asarray(part, rows.dtype) for part in (log_weights, mean, factor, inverse))
    return FittedReference(wide, logs, means, factors, inverses, rows)


def _better(own: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The moments of draws, or the given ones, whichever fits other draws better."""
    from sklearn.covariance import OAS

    first, second = np.array_split(own, 2)  # in the order of time: draws that alternate would know each other
    half = OAS().fit(first)
    if _log_normal(second, half.location_, half.covariance_).mean() < _log_normal(second, mean, covariance).mean():
        return mean, covariance
    whole = OAS().fit(own)
    return whole.location_, whole.covariance_


def _log_normal(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log-density [N] of rows [N, D]. scipy's refuses widths that differ by a factor of 10^5 as singular."""
    factor = np.linalg.cholesky(covariance)
    noise = np.linalg.solve(factor, (x - mean).T)
    constant = np.sum(np.log(np.diag(factor))) + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return -0.5 * np.sum(noise**2, axis=0) - constant
