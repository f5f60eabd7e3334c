"""Breakpoints that follow the inputs of a bank, and a refit that keeps its curves (docs/method.md, section 10)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.kan.bank import FunctionBank, Params

__all__ = ["adapted_grid", "fit_points", "refit", "sample_levels", "weighted_quantiles"]

_POINTS_PER_INTERVAL = 8
_RIDGE = 1e-4  # on coefficients, with functions of unit size: enough for float32 where knots coincide


def sample_levels(num_intervals: int) -> np.ndarray:
    """The N + 1 probabilities whose quantiles become breakpoints: 0, 1/N, ..., 1."""
    return np.arange(num_intervals + 1) / num_intervals


def weighted_quantiles(z: Array, weights: Array | None, levels: Array) -> Array:
    """Quantiles [K, *event] of weighted points [N, *event]; each point is in the middle of its own mass."""
    flat = z.reshape(z.shape[0], -1)
    mass = jnp.full(z.shape[0], 1 / z.shape[0], z.dtype) if weights is None else weights / jnp.sum(weights)

    def of_column(column: Array) -> Array:
        order = jnp.argsort(column)
        below = jnp.cumsum(mass[order]) - mass[order] / 2
        return jnp.interp(levels, below, column[order])

    return jax.vmap(of_column, in_axes=1, out_axes=1)(flat).reshape(-1, *z.shape[1:])


def adapted_grid(quantiles: Array, even: Array, uniform_fraction: Array | float) -> Array:
    """Breakpoints r even + (1 - r) quantiles.

    Args:
      quantiles: [..., N + 1] quantiles of the functions' inputs, at `sample_levels(N)`.
      even: [..., N + 1] even breakpoints over the new domain.
      uniform_fraction: r in [0, 1].

    Returns:
      [..., N + 1], not decreasing; the ends are exactly those of `even`.
    """
    low, high = even[..., :1], even[..., -1:]
    inside = jnp.sort(uniform_fraction * even + (1 - uniform_fraction) * jnp.clip(quantiles, low, high), axis=-1)
    return jnp.concatenate([low, inside[..., 1:-1], high], axis=-1)


def fit_points(grid: Array) -> Array:
    """Points [..., N R] that resolve every interval of `grid` [..., N + 1]: R Gauss-Legendre nodes each."""
    nodes, _ = np.polynomial.legendre.leggauss(_POINTS_PER_INTERVAL)
    share = jnp.asarray((nodes + 1) / 2, grid.dtype)
    points = grid[..., :-1, None] + jnp.diff(grid)[..., None] * share
    return points.reshape(*grid.shape[:-1], -1)


def refit(bank: FunctionBank, params: Params, grid: Array, target: Array) -> Params:
    """Parameters of `bank` on a new grid, fitted to given values of the functions by ridge least squares (QR).

    The basis weights become 1 and the base weights and scales stay: only the expansion is fitted, to the target minus
    the base activation's term.

    Args:
      params: the old parameters.
      grid: [Q, P', N + 1] the new breakpoints.
      target: [Q, P, N R] values of the functions at `fit_points(grid)`.

    Returns:
      New parameters, which are not finite if the target is not finite.
    """
    points = jnp.moveaxis(fit_points(grid), -1, 0)  # [N R, Q, P']
    values = jnp.moveaxis(bank.basis.evaluate(points, grid, params.get("scale")), 0, -2)  # [Q, P', N R, G]
    num_functions = values.shape[-1]
    ridge = _RIDGE * jnp.broadcast_to(
        jnp.eye(num_functions, dtype=grid.dtype), (*values.shape[:-2], num_functions, num_functions)
    )
    orthogonal, triangular = jnp.linalg.qr(jnp.concatenate([values, ridge], axis=-2))
    rest = target - bank.base_term(params, jnp.moveaxis(points, 0, -1))  # [Q, P, N R]
    projected = jnp.matmul(rest[..., None, :], orthogonal[..., : rest.shape[-1], :], precision="highest")
    triangular = jnp.broadcast_to(triangular, (*rest.shape[:-1], num_functions, num_functions))
    coefficients = jax.scipy.linalg.solve_triangular(triangular, projected[..., 0, :, None])[..., 0]
    return params | {
        "coefficients": coefficients,
        "basis_weight": jnp.ones_like(params["basis_weight"]),
        "grid": grid,
    }
