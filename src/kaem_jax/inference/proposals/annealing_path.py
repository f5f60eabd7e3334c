"""Paths of annealing, from a density with exact draws to p(x, z)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kaem_jax.inference.proposals.base import FittedProposal
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.mcmc.kernels import Bounds, LogDensity
from kaem_jax.model import Model, Params
from kaem_jax.priors.base import BoundPrior


class Path(NamedTuple):
    """Densities exp(log_start + beta log_gain) of positions, from exact draws at beta = 0 to p(x, z) at beta = 1.

    Attributes:
      log_start: positions [C, B, *position] to nats [C, B], the normalised log-density of their latents at beta = 0.
      log_gain: positions to nats [C, B], log p(x, z) minus that log-density.
      draw: (key, C) to exact draws at beta = 0, [C, B, *position].
      position_of: latents [..., B, *event] to positions.
      bounds: support of every coordinate of a position.
      exponent: exponent of the power ladder that suits the path.
    """

    log_start: LogDensity
    log_gain: LogDensity
    draw: Callable[[Array, int], Array]
    position_of: Callable[[Array], Array]
    bounds: Bounds
    exponent: float

    def refresh(self, key: Array, shape: tuple[int, ...]) -> Array:
        """One exact draw at beta = 0 per datum, [B, *position]; `tempered_posterior` passes `shape` (B,)."""
        return self.draw(key, 1)[0]


def log_joint_density(model: Model, params: Params, z: Array, x: Array, prior: BoundPrior) -> Array:
    """Log p(x_b, z) of proposed latents [..., B, *event], [..., B] nats; -inf in place of NaN.

    Heavy tails propose points so far out that float32 has no quantile there; the model has no mass there either.
    """
    value = model.log_joint(params, z, x, prior)
    return jnp.where(jnp.isnan(value), -jnp.inf, value)


def log_weight(model: Model, params: Params, z: Array, x: Array, fitted: FittedProposal, prior: BoundPrior) -> Array:
    """Log p(x_b, z) / q(z | x_b) of latents [..., B, *event], [..., B] nats."""
    return log_joint_density(model, params, z, x, prior) - fitted.log_prob(z)


def move_inside(bounds: Bounds, z: Array) -> Array:
    """Latents clipped to values just inside the bounds."""
    if bounds is None:
        return z
    low, high = bounds
    margin = 1e-4 * (high - low) if math.isfinite(high - low) else float(jnp.finfo(z.dtype).eps)
    return jnp.clip(z, low + margin, high - margin)


def path_from_prior(model: Model, params: Params, x: Array, prior: BoundPrior) -> Path:
    """From p(z); positions are latents. More rungs near the prior, where the mean log-likelihood changes fastest."""
    return Path(
        log_start=lambda z: prior.log_prob(z),
        log_gain=lambda z: model.log_likelihood(params, z, x, prior),
        draw=lambda key, num: constrain(prior.sample(key, (num, len(x))), None, "data"),
        position_of=lambda z: z,
        bounds=model.prior.bounds,
        exponent=3.0,
    )


def evidence_path(model: Model, params: Params, x: Array, fitted: FittedProposal | None, prior: BoundPrior) -> Path:
    """From q(z | x) without its share of prior draws; from the prior without q, or if the support is bounded.

    The tails of q leave the bounds, where chains would start with weight 0: with many latents, all of them.
    """
    if fitted is None or model.prior.bounds is not None:
        return path_from_prior(model, params, x, prior)
    return path_from_proposal(model, params, x, fitted.undefended(), prior)


def path_from_proposal(
    model: Model, params: Params, x: Array, fitted: FittedProposal, prior: BoundPrior, whitens: bool = True
) -> Path:
    """From q(z | x); positions are whitened by q, so that one step size suits all data, or latents if not `whitens`.

    A linear map changes all densities of a datum by one constant, which cancels in the ratios of annealing.
    """
    to: Callable[[Array], Array] = fitted.whiten if whitens else (lambda z: z)
    back: Callable[[Array], Array] = fitted.unwhiten if whitens else (lambda y: y)

    return Path(
        log_start=lambda y: fitted.log_prob(back(y)),
        log_gain=lambda y: log_weight(model, params, back(y), x, fitted, prior),
        draw=lambda key, num: constrain(to(fitted.draw(key, num)), None, "data"),
        position_of=to,
        bounds=None,
        exponent=1.0,
    )
