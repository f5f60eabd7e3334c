"""A linear map between latents and the decoder's input, which a prior learns with its densities.

The input of the decoder is v = A z, and z = W v with W = A^-1. W is lower triangular with ones on its diagonal, so
its determinant is 1 and densities of v and of z have the same values. The univariate densities are those of z; the
normal approximation of an encoder, which is diagonal, is one of v (docs/method.md, section 14).
"""

import math

import jax.numpy as jnp
from jax import Array

__all__ = ["apply_map", "inverse_of", "unmixing_of"]


def unmixing_of(parameter: Array) -> Array:
    """W: the part of a parameter [Q, Q] below the diagonal, divided by sqrt(Q), and ones on the diagonal."""
    # Adam moves every entry by its rate, whatever Q, and a latent is a sum over a row.
    size = len(parameter)
    return jnp.tril(parameter, -1) / math.sqrt(size) + jnp.eye(size, dtype=parameter.dtype)


def inverse_of(unmixing: Array) -> Array:
    """A = W^-1, [Q, Q]."""
    eye = jnp.eye(len(unmixing), dtype=unmixing.dtype)
    power, inverse, size = eye - unmixing, 2 * eye - unmixing, 2
    while size < len(unmixing):
        power = jnp.matmul(power, power, precision="highest")
        inverse = inverse + jnp.matmul(inverse, power, precision="highest")
        size *= 2
    return inverse


def apply_map(matrix: Array | None, values: Array) -> Array:
    """The product of [Q, Q] and values [..., Q]; None is the identity."""
    return values if matrix is None else jnp.matmul(values, matrix.T, precision="highest")
