"""Samples and reconstructions of a trained model, batch by batch, so that any number fits into memory."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.app.runs.load import Run
from kaem_jax.inference.samplers import Draws, FrozenSampler
from kaem_jax.jax_utils.batches import in_batches
from kaem_jax.jax_utils.placement import constrain
from kaem_jax.jax_utils.transforms import full_precision
from kaem_jax.model import Model, Params
from kaem_jax.priors import BoundPrior, Prior
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.training.batch import to_unit_interval

BLOCK = 4096  # latents drawn at once
_BATCH = 256


def sample_in_batches(
    key: Array, model: Model, params: Params, num: int, *, cluster: int | None = None, label: int | None = None
) -> Iterator[np.ndarray]:
    """Draws E[x | z] at prior draws z: yields [n, *data_shape] with n at most 256.

    The first k draws are the same for every `num` of at least k. `cluster` draws from one cluster of a clustered prior,
    and `label` from the clusters of one class.

    Raises:
      ValueError: the prior has no such cluster or class.
    """
    prior = model.prior.bind(params["prior"])
    for first in range(0, num, BLOCK):
        key_block = jax.random.fold_in(key, first // BLOCK)
        z = _draw_latents(key_block, prior, BLOCK, cluster, label)
        for start in range(0, min(BLOCK, num - first), _BATCH):
            images = np.asarray(_decode(model, params, z[start : start + _BATCH], prior))
            yield images[: num - first - start]


def sample_with_noise(
    key: Array, model: Model, params: Params, num: int, *, cluster: int | None = None, label: int | None = None
) -> np.ndarray:
    """Draws x ~ p(x) with the likelihood's noise, [num, *data_shape]; arguments as for `sample_in_batches`.

    For tables, fields and texts: a mean row has no categories, and tokens have no mean.
    """
    key_z, key_x = jax.random.split(key)
    prior = model.prior.bind(params["prior"])
    z = _draw_latents(key_z, prior, num, cluster, label)
    drawn = in_batches(lambda key, z: _simulate(model, key, params, z, prior), key_x, z, min(_BATCH, num))
    return np.concatenate(list(drawn))


@functools.partial(jax.jit, static_argnums=0)
def _decode(model: Model, params: Params, z: Array, prior: BoundPrior) -> Array:
    return constrain(model.decode(params, constrain(z, "data"), prior))


@functools.partial(jax.jit, static_argnums=0)
def _simulate(model: Model, key: Array, params: Params, z: Array, prior: BoundPrior) -> Array:
    return constrain(model.simulate(key, params, constrain(z, "data"), prior))


def _draw_latents(key: Array, prior: Any, num: int, cluster: int | None, label: int | None) -> Array:
    if cluster is None and label is None:
        return prior.sample(key, (num,))
    check_part(prior.prior, cluster=cluster, label=label)
    return (
        prior.sample_of_class(key, label, (num,)) if cluster is None else prior.sample_of_cluster(key, cluster, (num,))
    )


def check_part(prior: Prior, *, cluster: int | None = None, label: int | None = None) -> None:
    """Raises a ValueError if the prior has no such cluster or class."""
    name, value = ("cluster", cluster) if label is None else ("label", label)
    if not isinstance(prior, ClusteredPrior):
        raise ValueError(f"{name}={value} needs a clustered prior; latents of this one have no clusters")
    if cluster is not None:
        prior.check_cluster(cluster)
    if label is not None:
        prior.check_label(label)


@full_precision
def reconstruct(key: Array, model: Model, params: Params, x: Array, posterior: FrozenSampler) -> tuple[Array, Array]:
    """Posterior means of E[x | z] [B, *data_shape] for data x, NaN where missing, and their mean squared error."""
    return means_of(model, params, posterior.draw(key, model, params, x), x)


@functools.partial(jax.jit, static_argnames="model")
def means_of(model: Model, params: Params, draws: Draws, x: Array) -> tuple[Array, Array]:
    """The same of posterior draws of x."""
    mean = draws.mean(model.decode(params, draws.z))
    return constrain(mean), jnp.nanmean(jnp.square(mean - constrain(x, "data")))


def reconstruct_in_batches(key: Array, run: Run, data: np.ndarray) -> Iterator[np.ndarray]:
    """Posterior means of E[x | z] for each of `data`, in batches of at most 256, by the run's posterior sampler."""
    return in_batches(
        lambda key, x: reconstruct(key, run.model, run.params, to_unit_interval(x), run.posterior)[0], key, data, _BATCH
    )
