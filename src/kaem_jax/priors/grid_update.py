"""Grid updates of a prior: breakpoints move to where the latents are, and the densities stay the same."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.devices.transforms import choose, expand_to
from kaem_jax.kan.grid import adapted_grid, fit_points, refit, sample_levels, weighted_quantiles
from kaem_jax.priors.base import Params
from kaem_jax.priors.tabulated import TabulatedPrior

__all__ = ["GridUpdate", "update_grid"]

_TAIL = 1e-4  # largest probability of the tail on each side of the new domain
_NUM_LEVELS = 1000


class GridUpdate(NamedTuple):
    """What an update did to each latent's density.

    Attributes:
      total_variation: [*event_shape] between the densities before and after, in 0..1; for a refused update, the change
        that it would have made.
      accepted: [*event_shape] bool; a density that was not accepted keeps its old grid and curve.
    """

    total_variation: Array
    accepted: Array


@functools.partial(jax.jit, static_argnums=0)
def update_grid(
    prior: TabulatedPrior,
    params: Params,
    z: Array | None = None,
    weights: Array | None = None,
    *,
    uniform_fraction: Array | float = 0.5,
    max_total_variation: Array | float = 0.02,
) -> tuple[Params, GridUpdate]:
    """Moves the breakpoints of every density and refits the functions to their old curves.

    Breakpoints become r even + (1 - r) quantiles of the latents, where `even` is the base's `even_grid`. The
    domain may grow or shrink, but it always contains the central 1 - 2e-4 of the density's own mass, so that no curve
    is cut off; a bounded base keeps its domain. Energies are constant outside the old domain, and the refit uses
    these constants there.

    Args:
      prior: a centred product or mixture prior (`prior.centred`) whose basis follows its grid.
      params: its parameters.
      z: [N, *event_shape] inputs of the bank, for instance posterior draws; None takes the prior's own exact quantiles,
        without any noise.
      weights: [N] weights of `z` that add up to 1; None for equal weights.
      uniform_fraction: r in [0, 1].
      max_total_variation: a density that would change by more, or is not finite, is left as it was.

    Raises:
      ValueError: the basis has no breakpoints that could move.
    """
    bank, base = prior.bank, prior.base
    if not bank.basis.follows_grid:
        raise ValueError(f"basis={bank.basis!r} has no breakpoints to move; take one that has, such as b_spline")
    table = prior.tabulate(params)
    old = bank.frozen_grid(params["bank"])
    levels = jnp.clip(jnp.asarray(sample_levels(bank.num_intervals), old.dtype), _TAIL, 1 - _TAIL)
    everywhere = (levels.size, *prior.event_shape)
    own = prior.quantile(table, jnp.broadcast_to(expand_to(levels, len(everywhere)), everywhere))
    quantiles = own if z is None else jnp.sort(weighted_quantiles(z, weights, levels), axis=0)
    own, quantiles = (jnp.moveaxis(a, 0, -1).reshape(*bank.grid_shape, -1) for a in (own, quantiles))
    if base.has_tails:
        # The first and last of the levels are the tails.
        low, high = jnp.minimum(own[..., 0], quantiles[..., 0]), jnp.maximum(own[..., -1], quantiles[..., -1])
    else:
        low, high = old[..., 0], old[..., -1]
    grid = adapted_grid(quantiles, base.even_grid(low, high, bank.num_intervals), uniform_fraction)

    points = jnp.moveaxis(jnp.clip(fit_points(grid), old[..., :1], old[..., -1:]), -1, 0)
    energy = jnp.moveaxis(bank.evaluate(params["bank"], points), 0, -1)  # [Q, P, N R]
    proposed = params | {"bank": refit(bank, params["bank"], grid, energy)}

    # TV = E_p[(1 - q/p)_+], over p's own quantiles.
    middle = (jnp.arange(_NUM_LEVELS, dtype=old.dtype) + 0.5) / _NUM_LEVELS
    at = prior.quantile(table, jnp.broadcast_to(expand_to(middle, len(everywhere)), (middle.size, *prior.event_shape)))
    ratio = prior.density(prior.tabulate(proposed), at) / prior.density(table, at)
    total_variation = jnp.mean(jnp.maximum(1 - ratio, 0), axis=0)
    accepted = (total_variation <= max_total_variation) & jnp.all(jnp.isfinite(ratio), axis=0)  # False for NaN

    keep = functools.partial(choose, accepted.reshape(bank.grid_shape))
    chosen = jax.tree.map(keep, proposed["bank"], params["bank"])
    return params | {"bank": chosen}, GridUpdate(total_variation, accepted)
