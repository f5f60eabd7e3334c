"""Uniform points of the open unit cube: pseudo-random draws, or scrambled Sobol points that run under jit."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.settings.arguments import check_choice

Points = Literal["random", "sobol"]
POINTS = get_args(Points)
_BITS = 32


def open_uniform(key: Array, shape: tuple[int, ...], dtype=None) -> Array:
    """Uniform draws from (0, 1): midpoints of the cells of `jax.random.uniform`, never 0 or 1."""
    u = jax.random.uniform(key, shape, dtype)
    return u + jnp.finfo(u.dtype).eps / 2


def uniform_points(
    key: Array, shape: tuple[int, ...], event_shape: tuple[int, ...], points: str = "random", dtype=None
) -> Array:
    """Points of the cube (0, 1)^event, [*shape, *event_shape].

    `random` points are independent. `sobol` points are one scrambled Sobol set of prod(shape) points, far more even
    than random points, so that integrals of smooth functions converge faster; powers of two are best.

    Raises:
      ValueError: `points` is unknown, or there are more coordinates than Sobol numbers (21,201).
    """
    check_choice("points", points, POINTS)
    if points == "random":
        return open_uniform(key, (*shape, *event_shape), dtype)
    u = sobol_points(key, int(np.prod(shape, dtype=int)), int(np.prod(event_shape, dtype=int)), dtype)
    return u.reshape(*shape, *event_shape)


def sobol_points(key: Array, n: int, dimension: int, dtype=None) -> Array:
    """The first n Sobol points with a random linear scramble and a digital shift (Matousek, 1998): [n, dimension].

    Every point is uniform on (0, 1)^dimension, so averages are unbiased. Each key gives its own scramble, so the spread
    over keys is a valid error.
    """
    key_scramble, key_shift = jax.random.split(key)
    num_bits = max(n - 1, 1).bit_length()
    directions = jnp.asarray(_direction_numbers(dimension, num_bits))  # column j belongs to bit j of the index
    # One random lower triangular bit matrix with a unit diagonal for each coordinate: row r makes bit r, counted from
    # the top, out of this bit and those above it.
    top = jnp.uint32(1) << jnp.arange(_BITS - 1, -1, -1, dtype=jnp.uint32)
    above = ~(2 * top - 1)  # for the top row, 2 * top wraps to 0 and leaves nothing
    rows = (jax.random.bits(key_scramble, (dimension, _BITS), jnp.uint32) & above) | top
    parity = jax.lax.population_count(rows[:, :, None] & directions[:, None, :]) & 1
    scrambled = jnp.sum(parity * top[:, None], axis=1, dtype=jnp.uint32)

    index = jnp.arange(n, dtype=jnp.uint32)[:, None]
    bits = jnp.broadcast_to(jax.random.bits(key_shift, (dimension,), jnp.uint32), (n, dimension))
    for j in range(num_bits):
        bits = bits ^ jnp.where((index >> j) & 1 == 1, scrambled[:, j], 0)
    # Midpoints of cells of width 2^-23, as in open_uniform (2^-32 in float64): finer ones would round to 1.
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    dropped = _BITS - min(_BITS, jnp.finfo(dtype).nmant)
    return ((bits >> dropped).astype(dtype) + 0.5) * 2.0 ** (dropped - _BITS)


@functools.cache
def _direction_numbers(dimension: int, num: int) -> np.ndarray:
    """Joe and Kuo's direction numbers, uint32 [dimension, num], recovered from the points that scipy generates.

    scipy visits points in Gray code order, in which points 2^j - 1 and 2^j differ by direction number j alone.
    """
    from scipy.stats import qmc  # takes a third of a second to import: only where it is used

    if dimension > qmc.Sobol.MAXDIM:
        raise ValueError(f"Sobol points have at most {qmc.Sobol.MAXDIM} coordinates, not {dimension}; use 'random'")
    engine = qmc.Sobol(dimension, scramble=False, bits=_BITS)
    directions = np.empty((dimension, num), np.uint32)
    for j in range(num):
        engine.reset()
        if j:
            engine.fast_forward(2**j - 1)
        before, after = (engine.random(2) * 2**_BITS).astype(np.uint32)
        directions[:, j] = before ^ after
    return directions
