"""Paths through the latent space, in steps of equal probability."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy import special

from kaem_jax.jax_utils.keys import marginal_key
from kaem_jax.model import Model, Params

_NUM_EMPIRICAL = 4096


@functools.partial(jax.jit, static_argnames="model")
def traverse(model: Model, params: Params, latent: Array, coordinates: Array, levels: Array) -> Array:
    """Images as single coordinates move along their own densities while all others stay: [R, K, *data_shape].

    `latent` [*event_shape] has the values of the others, `coordinates` are positions, int [R], in the flattened latent,
    and `levels` [K] are probabilities in (0, 1), at which each coordinate takes its quantiles.
    """
    shape = model.prior.event_shape
    everywhere = jnp.broadcast_to(levels.reshape(-1, *[1] * len(shape)), (len(levels), *shape))
    quantiles = _from_uniform(model, params, everywhere).reshape(len(levels), -1)

    def row(i: Array) -> Array:
        still = jnp.broadcast_to(latent.reshape(-1), quantiles.shape)
        moved = still.at[:, i].set(quantiles[:, i])
        return model.decode(params, moved.reshape(-1, *shape))

    return jax.lax.map(row, coordinates)


@functools.partial(jax.jit, static_argnames=("model", "num"))
def latents_between(model: Model, params: Params, first: Array, second: Array, num: int = 9) -> Array:
    """A path between latents [*event_shape], straight in the probability of each coordinate: [num, *event_shape].

    If coordinates are independent, the path stays in likely regions. Both ends are included.
    """
    u = jnp.stack([_to_uniform(model, params, latent) for latent in (first, second)])
    t = jnp.linspace(0, 1, num).astype(u.dtype).reshape(-1, *[1] * first.ndim)
    return _from_uniform(model, params, (1 - t) * u[0] + t * u[1])


def _to_uniform(model: Model, params: Params, latent: Array) -> Array:
    """The probability below each coordinate of a latent, inside (0, 1)."""
    prior = model.prior
    if not prior.has_quantiles:
        columns, ranks = _ordered_draws(model, params)
        u = jax.vmap(lambda value, column: jnp.interp(value, column, ranks))(latent.reshape(-1), columns)
        u = u.reshape(latent.shape)
    elif not prior.is_standard_normal:
        u = prior.bind(params["prior"]).cdf(latent)
    else:
        u = special.ndtr(latent)
    edge = jnp.finfo(u.dtype).eps
    return jnp.clip(u, edge, 1 - edge)


def _from_uniform(model: Model, params: Params, u: Array) -> Array:
    prior = model.prior
    if not prior.has_quantiles:
        columns, ranks = _ordered_draws(model, params)
        at = jax.vmap(lambda values, column: jnp.interp(values, ranks, column), in_axes=(1, 0), out_axes=1)
        return at(u.reshape(-1, len(columns)), columns).reshape(u.shape)
    if not prior.is_standard_normal:
        return prior.bind(params["prior"]).quantile(u)
    return special.ndtri(u)


def _ordered_draws(model: Model, params: Params) -> tuple[Array, Array]:
    """Sorted draws of each coordinate of a prior without quantiles, [Q, N], and their ranks in [0, 1], [N]."""
    draws = model.prior.bind(params["prior"]).sample(marginal_key(), (_NUM_EMPIRICAL,))
    columns = jnp.sort(draws.reshape(_NUM_EMPIRICAL, -1), axis=0).T
    return columns, jnp.linspace(0, 1, _NUM_EMPIRICAL, dtype=columns.dtype)
