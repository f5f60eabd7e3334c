"""Linear maps between latents and the standardised coordinates of each cluster (docs/method.md, section 14).

    diagonal  y_c = s_c (z - m_c)
    shared    y_c = s_c (U z - m_c)
    full      y_c = R_c (s_c U_c (z - m_c))

U is lower triangular with a unit diagonal, s_c > 0 scales coordinates and R_c is a rotation: the log-determinant is the
sum of log s_c. A triangular map whitens a normal distribution; only a rotation finds independent axes. `fit_prior` sets
rotations, gradients do not train them.

Parameters: `location` m and `log_scale` [C, Q]; `lower` [Q, Q], or [C, Q, Q] for full maps; `rotation` R [C, Q, Q] for
full maps of learned shapes.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Map = Literal["diagonal", "shared", "full"]
Params = dict[str, Array]


def init_map(key: Array, kind: Map, shape: tuple[int, int], spread: float, rotates: bool) -> Params:
    """Unit scales, no shear, locations N(0, spread^2): clusters that start alike would stay alike."""
    num_clusters, num_latents = shape
    params = {"location": spread * jax.random.normal(key, shape), "log_scale": jnp.zeros(shape, float)}
    if kind != "diagonal":
        lead = () if kind == "shared" else (num_clusters,)
        params["lower"] = jnp.zeros((*lead, num_latents, num_latents), float)
    if rotates:
        params["rotation"] = jnp.broadcast_to(jnp.eye(num_latents, dtype=float), (*shape, num_latents))
    return params


def triangular_params(kind: Map, location: np.ndarray, triangular: np.ndarray) -> Params:
    """Parameters of y_c = T_c (z - m_c): m [C, Q], T [C, Q, Q] lower triangular. For shared maps T_c = s_c U."""
    scale = np.diagonal(triangular, axis1=-2, axis2=-1)
    params = {"location": jnp.asarray(location, float), "log_scale": jnp.asarray(np.log(scale), float)}
    if kind != "diagonal":
        unit = triangular / scale[..., None]
        below = math.sqrt(location.shape[-1]) * np.tril(unit, -1)
        params["lower"] = jnp.asarray(below if kind == "full" else below[0], float)
    if kind == "shared":  # whose locations come after U
        params["location"] = jnp.asarray(location @ unit[0].T, float)
    return params


def to_standard(kind: Map, params: Params, z: Array) -> Array:
    """Coordinates of latents [..., Q] in every cluster, [..., C, Q]."""
    scale = jnp.exp(params["log_scale"])
    y = _sheared(kind, params, z)[..., None, :] - params["location"]
    if kind != "full":
        return scale * y
    # Scaled first: on CPUs the gradient of a scale of y would be a slow sum over the batch.
    matrix = scale[..., None] * _unit_lower(params["lower"])
    y = jnp.einsum("cij,...cj->...ci", matrix, y, precision="highest")
    if "rotation" not in params:
        return y
    # Two products with vectors: multiplying the matrices first would cost C Q^3.
    return jnp.einsum("cij,...cj->...ci", jax.lax.stop_gradient(params["rotation"]), y, precision="highest")


def squared_norms(kind: Map, params: Params, z: Array) -> Array:
    """|y_c|^2 of latents [..., Q] in every cluster, [..., C], under diagonal or shared maps."""
    scale, location = jnp.exp(params["log_scale"]), params["location"]
    z = _sheared(kind, params, z)
    return jax.lax.platform_dependent(z, location, scale, tpu=_norms_by_products, default=_norms_one_by_one)


@jax.custom_jvp
def _norms_one_by_one(z: Array, location: Array, scale: Array) -> Array:
    """Keeps the digits of a narrow cluster that lies far out."""
    return jnp.sum(jnp.square(scale * (z[..., None, :] - location)), axis=-1)


@_norms_one_by_one.defjvp
def _derivative_by_products(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return _norms_one_by_one(*primals), jax.jvp(_norms_by_products, primals, tangents)[1]


def _norms_by_products(z: Array, location: Array, scale: Array) -> Array:
    """By expanding the square: on a TPU, differences of all data and clusters would take longer than a network."""
    # Centred latents have small products, so that cancellation loses few digits.
    middle = jax.lax.stop_gradient(jnp.mean(location, axis=0))
    z, location, weight = z - middle, location - middle, jnp.square(scale)
    both = jnp.concatenate([jnp.square(z), z], axis=-1)
    weights = jnp.concatenate([weight, -2 * weight * location], axis=-1)
    return jnp.matmul(both, weights.T, precision="highest") + jnp.sum(weight * jnp.square(location), axis=-1)


def directions(kind: Map, params: Params) -> Array:
    """The derivative of y in z: [C, Q] for diagonal maps, matrices [C, Q, Q] for others."""
    scale = jnp.exp(params["log_scale"])
    if kind == "diagonal":
        return scale
    matrix = scale[..., None] * _unit_lower(params["lower"])
    return jnp.matmul(params["rotation"], matrix, precision="highest") if "rotation" in params else matrix


def inverse_of(kind: Map, params: Params) -> Array | None:
    """Matrices from y to z: U^-1 [Q, Q] for a shared map, dz / dy [C, Q, Q] for full maps, None for diagonal maps."""
    if kind == "diagonal":
        return None
    unit = _unit_lower(params["lower"])
    right = jnp.broadcast_to(jnp.eye(unit.shape[-1], dtype=unit.dtype), unit.shape)
    if "rotation" in params:
        right = jnp.swapaxes(params["rotation"], -1, -2)
    if kind == "full":
        right = right * jnp.exp(-params["log_scale"])[..., None]
    return jax.scipy.linalg.solve_triangular(unit, right, lower=True, unit_diagonal=True)


def from_standard(location: Array, log_scale: Array, shared_inverse: Array | None, y: Array) -> Array:
    """Coordinates y [..., Q] as latents, for diagonal maps or a shared one with this U^-1.

    `location` and `log_scale` [..., Q] belong to the cluster of each y.
    """
    z = location + y * jnp.exp(-log_scale)
    return z if shared_inverse is None else jnp.matmul(z, shared_inverse.T, precision="highest")


def _sheared(kind: Map, params: Params, z: Array) -> Array:
    return jnp.matmul(z, _unit_lower(params["lower"]).T, precision="highest") if kind == "shared" else z


def _unit_lower(parameter: Array) -> Array:
    """The strictly lower triangle of a parameter [..., Q, Q], divided by sqrt(Q), with ones on the diagonal."""
    # Adam moves every entry by its rate, and coordinates sum over a row: without division they move more for large Q.
    size = parameter.shape[-1]
    return jnp.tril(parameter, -1) / math.sqrt(size) + jnp.eye(size, dtype=parameter.dtype)
