"""One metric for the chains of all data: the average curvature of their posteriors (docs/method.md, section 7).

Posterior precision spans orders of magnitude, and the sharpest direction limits the step size. In coordinates in which
the average precision is the identity, one step size suits all directions.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

_RATE = 0.02  # of the running average, once it has seen 1 / _RATE minibatches
_FLOOR = 0.1  # smallest curvature of the prior, in units of 1 / latent^2


class Metric(NamedTuple):
    """Average curvatures of flattened latents.

    Attributes:
      likelihood: [Q, Q], of -log p(x | z) at posterior draws.
      prior: [Q], of -log p(z) at its own draws, coordinate by coordinate.
    """

    likelihood: Array
    prior: Array


class Frame(NamedTuple):
    """Coordinates y = to z in which the prior's curvature is the identity and the likelihood's is diagonal.

    Attributes:
      to: [Q, Q].
      back: [Q, Q], its inverse.
      curvature: [Q], of -log p(x | z) along each y: the precision on rung beta is 1 + beta curvature.
    """

    to: Array
    back: Array
    curvature: Array


def whitened(frame: Frame) -> Frame:
    """The frame with the same axes, scaled so that the precision at beta = 1 is the identity."""
    unit = jnp.sqrt(1 + frame.curvature)
    return Frame(frame.to * unit[:, None], frame.back / unit, jnp.zeros_like(frame.curvature))


def to_frame(frame: Frame, z: Array, event_ndim: int) -> Array:
    """Positions [..., *event] as y [..., Q]."""
    flat = z.reshape(*z.shape[: z.ndim - event_ndim], -1)
    return jnp.matmul(flat, frame.to.T, precision="highest")


def from_frame(frame: Frame, y: Array, event_shape: tuple[int, ...]) -> Array:
    """The inverse of `to_frame`."""
    return jnp.matmul(y, frame.back.T, precision="highest").reshape(*y.shape[:-1], *event_shape)


def flat_metric(size: int) -> Metric:
    """The metric of a standard normal prior alone, before any draw."""
    return Metric(jnp.zeros((size, size), float), jnp.ones((size,), float))


def average_metric(metric: Metric, probes: Array, prior_scores: Array, count: Array | int) -> Metric:
    """The running average after another minibatch; a plain average over the first 50.

    Rows with non-finite numbers are dropped, so one diverged chain cannot spoil the metric of all.

    Args:
      probes: [N, Q], whose outer products average to the curvature of -log p(x | z).
      prior_scores: [M, Q], gradients of log p(z) at draws of p(z), whose squares average to its curvature.
      count: number of minibatches before this one.
    """
    rate = jnp.maximum(1 / (jnp.asarray(count).astype(probes.dtype) + 1), _RATE)
    known, num_known = finite_rows(probes)
    product = jnp.matmul(known.T, known, precision="highest") / jnp.maximum(num_known, 1)
    scores, num_scores = finite_rows(prior_scores)
    squares = jnp.sum(jnp.square(scores), axis=0) / jnp.maximum(num_scores, 1)

    def moved(old: Array, seen: Array, num: Array) -> Array:
        return jnp.where(num > 0, (1 - rate) * old + rate * seen, old)

    return Metric(moved(metric.likelihood, product, num_known), moved(metric.prior, squares, num_scores))


def finite_rows(rows: Array) -> tuple[Array, Array]:
    """Rows [N, Q] with zeros in place of non-finite rows, and the number of finite rows."""
    is_known = jnp.all(jnp.isfinite(rows), axis=1)
    return jnp.where(is_known[:, None], rows, 0), jnp.sum(is_known, dtype=rows.dtype)


def principal_frame(metric: Metric) -> Frame:
    """The frame of a metric: one eigendecomposition serves all rungs."""
    deviation = jnp.sqrt(1 / jnp.maximum(metric.prior, _FLOOR))
    scaled = deviation[:, None] * metric.likelihood * deviation
    curvature, axes = jnp.linalg.eigh(scaled)
    return Frame(axes.T / deviation, deviation[:, None] * axes, jnp.maximum(curvature, 0))
