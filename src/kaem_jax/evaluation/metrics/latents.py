"""What each latent does: its density on a grid, and how much of the output moves with it."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.devices.placement import constrain
from kaem_jax.devices.transforms import full_precision
from kaem_jax.inference.samplers import FrozenSampler, SharedDraws
from kaem_jax.likelihoods import Categorical
from kaem_jax.model import Model, Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.training.keys import marginal_key

__all__ = ["Activity", "activity", "density_curves", "explained_variance", "latent_names"]

_NUM_HISTOGRAM_DRAWS = 100_000
_NUM_VARIANCE_DRAWS = 4096
_NUM_SHARED_PAIRS = 8


class Activity(NamedTuple):
    """How much the data decide of each decoder input.

    Attributes:
      share: [Q] of its prior variance, 0 for an input that does not depend on the data and 1 for one that they fix, up
        to Monte Carlo error.
      standard_error: [Q], over the data; where they share proposals, also over pairs of independent sets of these.
    """

    share: Array
    standard_error: Array


@functools.partial(jax.jit, static_argnames=("model", "num_decoded"))
def explained_variance(key: Array, model: Model, params: Params, num_decoded: int = 20_000) -> Array:
    """Total-effect Sobol index of every latent coordinate, by Jansen's estimator.

    It is the share of the output's variance, summed over pixels or over indicators of tokens, that is left when all
    other coordinates are known. The coordinates of a neural or clustered prior are not independent; there it is the
    share that changes when one of them alone is drawn again.

    Args:
      num_decoded: how many latents to decode in all, spread over the coordinates, at least 32 for each.

    Returns:
      [*event_shape], each in 0..1 up to Monte Carlo error; they add up to more than 1 where coordinates interact.
    """
    prior = model.prior
    table = prior.tabulate(params["prior"])
    size = math.prod(prior.event_shape)
    num_samples = max(32, num_decoded // size)
    first, second = (prior.sample(k, table, (num_samples,)).reshape(num_samples, size) for k in jax.random.split(key))

    def decode(latents: Array) -> Array:
        made = model.decode(params, latents.reshape(num_samples, *prior.event_shape), table)
        if isinstance(model.likelihood, Categorical):
            made = jax.nn.one_hot(made, model.likelihood.vocabulary)
        return made.reshape(num_samples, -1)

    base = decode(first)
    # Of both sets of draws: a quotient by the variance of few is too large.
    variance = jnp.sum(jnp.var(jnp.concatenate([base, decode(second)]), axis=0, ddof=1))

    def replaced(i: Array) -> Array:
        moved = decode(first.at[:, i].set(second[:, i]))
        return 0.5 * jnp.mean(jnp.sum(jnp.square(moved - base), axis=-1)) / jnp.maximum(variance, 1e-30)

    return jax.lax.map(replaced, jnp.arange(size)).reshape(prior.event_shape)


@full_precision
@functools.partial(jax.jit, static_argnames="model")
def activity(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> Activity:
    """The share of each decoder input's prior variance that the data decide: Var_x E[v | x] / Var v.

    Where a prior mixes its latents, they themselves stand in for the inputs.

    Burda et al. (2016) call a latent active where the numerator is above 0.01 (their prior has variance 1). It is
    estimated by the covariance over data of two independent posterior means (where data share proposals, by eight such
    pairs): the Monte Carlo error of one mean alone would make every latent look active.

    Args:
      x: [B, *data_shape]; the other arguments are those of `reconstruct`.
    """
    x = constrain(x, "data")
    table = model.prior.tabulate(params["prior"])
    drawn = jax.eval_shape(lambda key: posterior.draw(key, model, params, x), key)
    num_pairs = _NUM_SHARED_PAIRS if isinstance(drawn, SharedDraws) else 1
    key_prior, *keys = jax.random.split(key, 1 + 2 * num_pairs)

    def inputs(z: Array) -> Array:
        return z if isinstance(model.prior, ClusteredPrior) else model.prior.features(table, z)

    def centred_mean(key: Array) -> Array:
        draws = posterior.draw(key, model, params, x)
        mean = draws.mean(inputs(draws.z))
        return mean - jnp.mean(mean, axis=0)

    # A loop, not two calls: XLA's CPU runtime runs two independent draws at once, and where both factorise matrices its
    # threads can wait for each other for ever (BUILD_NOTES.md, "Laplace base densities").
    means = jax.lax.map(centred_mean, jnp.stack(keys))
    variance = jnp.var(inputs(model.prior.sample(key_prior, table, (_NUM_VARIANCE_DRAWS,))), axis=0)
    products = means[::2] * means[1::2] / variance  # [pairs, B, Q]
    shares = jnp.sum(products, axis=1) / (len(x) - 1)
    squared_error = jnp.var(jnp.mean(products, axis=0), axis=0) / (len(x) - 1)
    if num_pairs > 1:  # data that share their proposals err together
        squared_error += jnp.var(shares, axis=0, ddof=1) / num_pairs
    return Activity(jnp.mean(shares, axis=0), jnp.sqrt(squared_error))


def latent_names(shape: tuple[int, ...]) -> list[str]:
    """Names such as "z3" or "z3,1" of the coordinates of latents of this shape, in row-major order."""
    return ["z" + ",".join(map(str, index)) for index in np.ndindex(*shape)]


def density_curves(
    model: Model, params: Params, num_points: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Every univariate density and its base on its own range, for plotting.

    Returns:
      z, density, base, each [num_points, L] for the L latents in row-major order, and their L names.
    """
    names = latent_names(model.prior.centred.event_shape)
    curves = _curves if model.prior.has_quantiles else _histograms
    z, density, base = (np.asarray(a).reshape(num_points, -1) for a in curves(model, params["prior"], num_points))
    return z, density, base, names


@functools.partial(jax.jit, static_argnames=("model", "num_points"))
def _histograms(model: Model, params: Params, num_points: int) -> tuple[Array, Array, Array]:
    """The marginals of a prior without tables, as smoothed histograms of 100,000 draws.

    There are as many cells as points. The counts are smoothed over a fiftieth of the range, so that their noise makes
    no modes.
    """
    prior = model.prior
    draws = prior.sample(marginal_key(), prior.tabulate(params), (_NUM_HISTOGRAM_DRAWS,))
    edges = jnp.linspace(jnp.min(draws, axis=0), jnp.max(draws, axis=0), num_points + 1)
    counts = jax.vmap(lambda column, cells: jnp.histogram(column, cells, density=True)[0], in_axes=1, out_axes=1)
    z = (edges[1:] + edges[:-1]) / 2
    offsets = jnp.arange(-(num_points // 10), num_points // 10 + 1, dtype=z.dtype)
    kernel = jnp.exp(-0.5 * jnp.square(offsets / (num_points / 50)))
    smooth = jax.vmap(lambda column: jnp.convolve(column, kernel / kernel.sum(), mode="same"), in_axes=1, out_axes=1)
    return z, smooth(counts(draws, edges)), jnp.exp(prior.base.log_prob({}, z))


@functools.partial(jax.jit, static_argnames=("model", "num_points"))
def _curves(model: Model, params: Params, num_points: int) -> tuple[Array, Array, Array]:
    prior = model.prior.centred
    table = prior.tabulate(params)
    levels = jnp.asarray([1e-4, 1 - 1e-4]).reshape(2, *[1] * len(prior.event_shape))
    low, high = prior.quantile(table, jnp.broadcast_to(levels, (2, *prior.event_shape)))
    ends = (-math.inf, math.inf) if prior.bounds is None else prior.bounds
    below, above = (0.05 * (high - low) if math.isinf(end) else 0 for end in ends)  # nothing lies beyond a bound
    z = jnp.linspace(low - below, high + above, num_points)
    return z, prior.density(table, z), jnp.exp(prior.base.log_prob(table.base, z))
