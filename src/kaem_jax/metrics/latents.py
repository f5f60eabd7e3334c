"""What each latent does: its density on a grid, and how much of the output moves with it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.model import Model

__all__ = ["density_curves", "explained_variance"]

_NUM_HISTOGRAM_DRAWS = 100_000


@functools.partial(jax.jit, static_argnames=("model", "num_samples"))
def explained_variance(key: Array, model: Model, params: Any, num_samples: int = 256) -> Array:
    """Total-effect Sobol index of every generator input: the share of the output's variance, summed over pixels, that
    is lost when all other inputs are known (Jansen's estimator).

    Returns:
      [Q], each in 0..1 up to Monte Carlo error; they add up to more than 1 where inputs interact.
    """
    table = model.prior.tabulate(params["prior"])
    key_first, key_second = jax.random.split(key)
    features = model.prior.features(table, model.prior.sample(key_first, table, (num_samples,)))
    other = model.prior.features(table, model.prior.sample(key_second, table, (num_samples,)))

    def decode(v):
        output = model.generator.apply(params["generator"], v)
        return model.likelihood.mean(params["likelihood"], output).reshape(num_samples, -1)

    base = decode(features)
    variance = jnp.sum(jnp.var(base, axis=0))

    def replaced(q):
        moved = decode(features.at[:, q].set(other[:, q]))
        return 0.5 * jnp.mean(jnp.sum(jnp.square(moved - base), axis=-1)) / jnp.maximum(variance, 1e-30)

    return jax.lax.map(replaced, jnp.arange(features.shape[-1]))


def density_curves(
    model: Model, params: Any, num_points: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Every univariate density and its reference on its own range, for plotting.

    Returns:
      z, density, reference, each [num_points, L] for the L latents in row-major order, and their L names.
    """
    names = ["z" + ",".join(str(i) for i in index) for index in np.ndindex(*model.prior.centred.event_shape)]
    curves = _curves if model.prior.is_normalized else _histograms
    z, density, reference = (np.asarray(a).reshape(num_points, -1) for a in curves(model, params["prior"], num_points))
    return z, density, reference, names


@functools.partial(jax.jit, static_argnames=("model", "num_points"))
def _histograms(model: Model, params: Any, num_points: int) -> tuple[Array, Array, Array]:
    """The marginals of a prior without tables, from 100,000 of its draws on as many cells as there are points."""
    prior = model.prior
    draws = prior.sample(jax.random.key(0), prior.tabulate(params), (_NUM_HISTOGRAM_DRAWS,))
    edges = jnp.linspace(jnp.min(draws, axis=0), jnp.max(draws, axis=0), num_points + 1)
    counts = jax.vmap(lambda column, cells: jnp.histogram(column, cells, density=True)[0], in_axes=1, out_axes=1)
    z = (edges[1:] + edges[:-1]) / 2
    return z, counts(draws, edges), jnp.exp(prior.reference.log_prob({}, z))


@functools.partial(jax.jit, static_argnames=("model", "num_points"))
def _curves(model: Model, params: Any, num_points: int) -> tuple[Array, Array, Array]:
    prior = model.prior.centred
    table = prior.tabulate(params)
    levels = jnp.asarray([1e-4, 1 - 1e-4]).reshape(2, *[1] * len(prior.event_shape))
    low, high = prior.quantile(table, jnp.broadcast_to(levels, (2, *prior.event_shape)))
    margin = 0.05 * (high - low)
    z = jnp.linspace(low - margin, high + margin, num_points)
    return z, prior.density(table, z), jnp.exp(prior.reference.log_prob(table.reference, z))
