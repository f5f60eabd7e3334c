"""What each latent learned: its density, its modes, how much of the output moves with it; paths between latents."""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import special

from kaem_jax.app.data import Text
from kaem_jax.app.evaluation.generate import BLOCK
from kaem_jax.app.runs.load import Run
from kaem_jax.jax_utils.keys import marginal_key
from kaem_jax.likelihoods import Categorical
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior

_NUM_SMOOTHED, _NUM_EMPIRICAL = 4000, 4096
_NUM_DECODED, _NUM_TEXTS_DECODED = 20_000, 1000
_AT_ONCE = 32  # the layers of more images would take more memory than the rest of an evaluation
_MIN_PROMINENCE = 0.01  # as a fraction of the highest mode


class Learned(NamedTuple):
    """The univariate densities, most informative first.

    Attributes:
      z, density, base: [N, L] as `density_curves` returns them.
      names: names of the L latents.
      explained: [L] share of the output's variance that moves with each.
      coordinates: [L] position of each in the flattened latent. If densities share positions (in a comonotone prior),
        one density per position comes first.
    """

    z: np.ndarray
    density: np.ndarray
    base: np.ndarray
    names: list[str]
    explained: np.ndarray
    coordinates: np.ndarray


def learned_densities(key: Array, run: Run) -> Learned:
    """The univariate densities of a model, ranked with draws from `key`."""

    def of_densities(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, run.model.prior.value_shape).ravel()

    z, density, base, names = density_curves(run.model, run.params)
    num_decoded = _NUM_TEXTS_DECODED if isinstance(run.form, Text) else _NUM_DECODED
    explained = np.asarray(explained_variance(key, run.model, run.params, num_decoded))
    coordinates = of_densities(np.arange(explained.size).reshape(explained.shape))
    explained = of_densities(explained)
    is_again = np.arange(coordinates.size) >= np.unique(coordinates).size  # the first row has one of each latent
    order = np.lexsort((-explained, is_again))
    z, density, base = (values[:, order] for values in (z, density, base))
    return Learned(z, density, base, [names[i] for i in order], explained[order], coordinates[order])


def latent_names(shape: tuple[int, ...]) -> list[str]:
    """Names such as "z3" or "z3,1" of the coordinates of latents of this shape, in row-major order."""
    return ["z" + ",".join(map(str, index)) for index in np.ndindex(*shape)]


def density_curves(
    model: Model, params: Params, num_points: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Every univariate density and its base on its own range: z, density, base [num_points, L], and L names."""
    names = latent_names(model.prior.value_shape)
    curves = _curves if model.prior.has_quantiles else _smooth_curves
    z, density, base = (np.asarray(a).reshape(num_points, -1) for a in curves(model, params["prior"], num_points))
    return z, density, base, names


@functools.partial(jax.jit, static_argnames=("model", "num_points"))
def _curves(model: Model, params: Params, num_points: int) -> tuple[Array, Array, Array]:
    prior = model.prior.bind(params)
    levels = jnp.asarray([1e-4, 1 - 1e-4]).reshape(2, *[1] * len(prior.event_shape))
    low, high = prior.quantile(jnp.broadcast_to(levels, (2, *prior.event_shape)))
    ends = model.prior.base.support or (-math.inf, math.inf)
    below, above = (0.05 * (high - low) if math.isinf(end) else 0 for end in ends)  # nothing lies beyond a bound
    z = jnp.linspace(low - below, high + above, num_points)
    return z, prior.density(z), jnp.exp(model.prior.base.log_prob(params.get("base", {}), z))


def _smooth_curves(model: Model, params: Params, num_points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The marginals of a prior without quantiles, from draws."""
    draws = np.asarray(model.prior.bind(params).sample(marginal_key(), (_NUM_SMOOTHED,)))
    z = np.linspace(draws.min(axis=0), draws.max(axis=0), num_points)
    return z, smooth_densities(draws, z), np.exp(model.prior.base.log_prob({}, jnp.asarray(z)))


def smooth_densities(draws: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Kernel estimates of the density of each column of draws [N, L] at z [K, L]: [K, L]."""
    from scipy.stats import gaussian_kde  # takes a third of a second to import: only where it is used

    return np.stack([gaussian_kde(column)(at) for column, at in zip(draws.T, z.T, strict=True)], axis=1)


def explained_variance(key: Array, model: Model, params: Params, num_decoded: int = _NUM_DECODED) -> Array:
    """Total-effect Sobol index of every latent coordinate, by Jansen's estimator: [*event_shape].

    The share of the output's variance, summed over pixels or indicators of tokens, that is left when all other
    coordinates are known; shares add up to more than 1 if coordinates interact. If coordinates are dependent (in a
    neural or clustered prior), it is the share that changes when one of them alone is drawn again. `num_decoded`
    latents are decoded in all, 32 to 4,096 for each coordinate.
    """
    prior = model.prior.bind(params["prior"])
    size = math.prod(prior.event_shape)
    num_samples = _AT_ONCE * min(BLOCK // _AT_ONCE, max(1, num_decoded // (_AT_ONCE * size)))
    first, second = (prior.sample(k, (BLOCK,))[:num_samples] for k in jax.random.split(key))
    return _total_effects(model, params, prior, first, second)


@functools.partial(jax.jit, static_argnames="model")
def _total_effects(model: Model, params: Params, prior: BoundPrior, first: Array, second: Array) -> Array:
    shape, num_samples = first.shape[1:], len(first)
    first, second = (z.reshape(num_samples, -1) for z in (first, second))

    def decode(latents: Array) -> Array:
        made = model.decode(params, latents.reshape(-1, _AT_ONCE, *shape), prior)
        if isinstance(model.likelihood, Categorical):
            made = jax.nn.one_hot(made, model.likelihood.vocabulary)
        return made.reshape(num_samples, -1)

    base = decode(first)
    # The variance is over both sets of draws: dividing by that of few draws would bias the index upwards.
    variance = jnp.sum(jnp.var(jnp.concatenate([base, decode(second)]), axis=0, ddof=1))

    def replaced(i: Array) -> Array:
        moved = decode(first.at[:, i].set(second[:, i]))
        return 0.5 * jnp.mean(jnp.sum(jnp.square(moved - base), axis=-1)) / jnp.maximum(variance, 1e-30)

    return jax.lax.map(replaced, jnp.arange(first.shape[1])).reshape(shape)


def describe_latents(learned: Learned) -> list[dict[str, Any]]:
    """One entry for each univariate density: the content of latents.json."""
    entries = []
    for i, name in enumerate(learned.names):
        z, density, base = learned.z[:, i], learned.density[:, i], learned.base[:, i]
        share = density / density.sum()
        mean = float(share @ z)
        beyond = max(1 - float(np.trapezoid(base, z)), 0.0)  # the rule may exceed 1 a little
        entry = {
            "name": name,
            "explained_variance": float(learned.explained[i]),
            "mean": mean,
            "standard_deviation": float(np.sqrt(share @ (z - mean) ** 2)),
            "distance_from_base": float(0.5 * (np.trapezoid(np.abs(density - base), z) + beyond)),
            "modes": find_modes(z, density),
        }
        entries.append(entry)
    return entries


def find_modes(z: np.ndarray, density: np.ndarray) -> list[dict[str, float]]:
    """Local maxima of the values `density` [N] at increasing points z [N], which may fall to 0 beyond the ends.

    Returns `location`, `height` and `mass` of those whose prominence is at least 1 % of the highest, from left to
    right; the masses between valleys add up to 1.
    """
    from scipy.integrate import cumulative_trapezoid
    from scipy.signal import find_peaks, peak_prominences  # takes a second to import: only where it is used

    walled = np.concatenate([[0.0], density, [0.0]])
    peaks = find_peaks(walled)[0]
    ranked = walled.copy()
    ranked[peaks] *= 1 + 1e-9 * np.arange(len(peaks), 0, -1)  # all peaks of equal height would be prominent
    peaks = peaks[peak_prominences(ranked, peaks)[0] >= _MIN_PROMINENCE * density.max()] - 1
    valleys = [first + np.argmin(density[first:last]) for first, last in itertools.pairwise(peaks)]
    below = cumulative_trapezoid(density, z, initial=0)
    masses = np.diff(below[np.array([0, *valleys, -1])]) / below[-1]
    return [
        {"location": float(z[peak]), "height": float(density[peak]), "mass": float(mass)}
        for peak, mass in zip(peaks, masses, strict=True)
    ]


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
