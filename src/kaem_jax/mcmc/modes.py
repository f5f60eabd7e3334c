"""Modes of a log-density, by ascent from many starts, each with its curvature."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import choose
from kaem_jax.mcmc.kernels import value_and_score
from kaem_jax.mcmc.target import Target

_FRUITLESS = 8  # ascents in a row that find no new mode, after which the search ends
_MOST_MODES = 32
_STEPS_UPHILL, _FIRST_STEP = 32, 1e-3
_LIGHTEST = 12.0  # nats below the heaviest mode at which one is left out
_SAME = 0.5  # distance within which two ends of ascents are one mode, in deviations per square root of a dimension


class Modes(NamedTuple):
    """K modes with normal approximations, the heaviest first.

    Attributes:
      position: [K, D].
      covariance: [K, D, D], the inverse of the negative Hessian.
      log_mass: [K] nats, of the Laplace approximation of each mode's integral.
    """

    position: np.ndarray
    covariance: np.ndarray
    log_mass: np.ndarray


def find_modes(target: Target, draws: np.ndarray, of_reference: np.ndarray, rng: np.random.Generator) -> Modes:
    """Modes that ascents reach from draws of the chains [N, D] and of the reference [M, D].

    The next ascent starts where the modes that were found are farthest, until eight ascents of both kinds in a row find
    nothing new. Reference draws are moved towards their mean by random factors, since in many dimensions a basin near
    the centre holds few of them, and then a little uphill, all at once. A mode's mirror image in that mean is a start
    as well, since many posteriors have signs that can be exchanged. A mode that no start leads to is not found.
    """
    centre = of_reference.mean(axis=0)
    hot = (centre + rng.uniform(size=(len(of_reference), 1)) * (of_reference - centre)).astype(target.rows.dtype)
    found: list[_Mode] = []
    for pool in (draws, np.asarray(_uphill(target, hot))):
        distance, failed = np.full(len(pool), np.inf), 0
        for mode in found:
            distance = np.minimum(distance, _squared_distance(pool, mode))
        while failed < min(_FRUITLESS, len(pool)) and len(found) < _MOST_MODES:
            known, k = len(found), int(np.argmax(distance))
            distance[k] = -np.inf
            if (new := _new_mode(target, pool[k], found)) is not None:
                found.append(new)
                if (mirrored := _new_mode(target, 2 * centre - new.position, found)) is not None:
                    found.append(mirrored)
            failed = failed + 1 if len(found) == known else 0
            for mode in found[known:]:
                distance = np.minimum(distance, _squared_distance(pool, mode))
    found = sorted(found, key=lambda mode: -mode.log_mass)
    found = [mode for mode in found if mode.log_mass > found[0].log_mass - _LIGHTEST]
    size = draws.shape[1]
    inverses = [np.linalg.inv(mode.factor) for mode in found]
    return Modes(
        np.array([mode.position for mode in found]).reshape(-1, size),
        np.array([inverse.T @ inverse for inverse in inverses]).reshape(-1, size, size),
        np.array([mode.log_mass for mode in found]),
    )


class _Mode(NamedTuple):
    """A maximum [D], the Cholesky factor of the negative Hessian there, and Laplace's mass in nats."""

    position: np.ndarray
    factor: np.ndarray
    log_mass: float


def _new_mode(target: Target, start: np.ndarray, found: list[_Mode]) -> _Mode | None:
    """The mode that an ascent from `start` [D] reaches; None if it is among `found`, no maximum, or without a width."""
    value, position = _ascended(target, start)
    if not math.isfinite(value) or any(_squared_distance(position, mode) < _SAME**2 for mode in found):
        return None
    precision = -np.asarray(_curvature(target, position.astype(target.rows.dtype)), np.float64)
    try:
        factor = np.linalg.cholesky(0.5 * (precision + precision.T))
    except np.linalg.LinAlgError:
        return None
    log_mass = value + 0.5 * len(position) * math.log(2 * math.pi) - np.sum(np.log(np.diag(factor)))
    # A curvature that overflows, as in the neck of a funnel, has an infinite factor and no distance from anything.
    return _Mode(position, factor, float(log_mass)) if math.isfinite(log_mass) else None


def _ascended(target: Target, start: np.ndarray) -> tuple[float, np.ndarray]:
    """The end of an ascent, and the log-density there."""
    from scipy.optimize import minimize  # takes a fifth of a second to import: only where it is used

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, score = _value_and_score(target, z.astype(target.rows.dtype))
        value = float(value)
        return (-value, -np.asarray(score, np.float64)) if math.isfinite(value) else (1e30, np.zeros_like(z))

    if not math.isfinite(float(_value_and_score(target, start.astype(target.rows.dtype))[0])):
        return -math.inf, start
    end = minimize(loss, start.astype(np.float64), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return -float(end.fun), end.x


def _squared_distance(positions: np.ndarray, mode: _Mode) -> np.ndarray:
    """Of positions [..., D] from a mode, in its deviations, by coordinate."""
    return np.mean(np.square((positions - mode.position) @ mode.factor), axis=-1)


@jax.jit
def _value_and_score(target: Target, z: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(target.log_target)(z)


@jax.jit
def _uphill(target: Target, z: Array) -> Array:
    """Positions [M, D] after some steps of gradient ascent, each with a step size that follows its success."""

    def climb(carry: Any, _: None) -> tuple[Any, None]:
        z, value, score, size = carry
        new = z + size * score
        new_value, new_score = value_and_score(target.log_target, new)
        is_better = new_value > value
        z, score = (choose(is_better, *pair) for pair in ((new, z), (new_score, score)))
        return (z, jnp.where(is_better, new_value, value), score, size * jnp.where(is_better, 2.0, 0.25)[:, None]), None

    start = (z, *value_and_score(target.log_target, z), jnp.full((len(z), 1), _FIRST_STEP, z.dtype))
    return constrain(jax.lax.scan(climb, start, length=_STEPS_UPHILL)[0][0])


@jax.jit
def _curvature(target: Target, z: Array) -> Array:
    return jax.jacobian(jax.grad(target.log_target))(z)
