"""Fits a clustered prior to latents without gradients, and chooses its size on held-out latents."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array

from kaem_jax.priors.affine import Map
from kaem_jax.priors.base import Params
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.em import expectation, fit_gaussians, mean_log_prob, terms_of_labels
from kaem_jax.priors.shapes import fit_shapes
from kaem_jax.settings.arguments import check_key

_Fit = TypeVar("_Fit")

_SIZES: dict[Map, tuple[int, ...]] = {"full": (1, 4, 10, 25, 60), "diagonal": (1, 10, 40, 120)}
_NUM_INTERVALS = 2400  # of the grids of all densities: few densities may be finer
_ROWS_PER_CLUSTER = 5  # fewer latents than so many for each cluster and coordinate are not tried


def fit_prior(
    key: Array,
    z: np.ndarray,
    prior: ClusteredPrior | None = None,
    *,
    labels: np.ndarray | None = None,
    seconds: float = 60.0,
) -> tuple[ClusteredPrior, Params]:
    """Fits a clustered prior to latents by maximum likelihood: EM, FastICA and penalised shapes.

    `z` may also be the rows of a table, to model the density of the data themselves.

    Args:
      key: for the starts, and for the held-out tenth of `z` that selects sizes, rotations and shapes.
      z: float [N, Q], or [S, N, Q] with S posterior draws of each of N data.
      prior: the prior to fit. None chooses the number of clusters, and full or diagonal maps.
      labels: int [N], the classes of `z`, if clusters belong to classes.
      seconds: without `prior`, the processor time after which no larger mixture is tried.

    Returns:
      The prior and its parameters.

    Raises:
      ValueError: `z` has a wrong shape, fewer than 10 data or non-finite values; its width is not that of the prior;
        labels are given without classes, or classes without labels; or a label is not one of the classes.

    Example:
      >>> z = np.random.default_rng(0).normal(size=(200, 2))
      >>> prior, params = kaem.fit_prior(key, z, kaem.ClusteredPrior(num_latents=2, num_clusters=1, map="full"))
      >>> prior.bind(params).log_prob(z).shape
      (200,)
    """
    check_key(key)
    seed = int(jax.random.bits(key))
    draws = np.asarray(z, np.float32)
    draws = draws[None] if draws.ndim == 2 else draws
    if draws.ndim != 3 or draws.shape[1] < 10 or not np.isfinite(draws).all():
        raise ValueError(f"z has shape {np.shape(z)}; wanted: [N, Q] or [S, N, Q], finite, N = 10 or more")
    num_draws, num, size = draws.shape
    if prior is not None and prior.num_latents != size:
        raise ValueError(f"z has {size} columns; this prior has num_latents={prior.num_latents}")
    num_classes = 0 if prior is None else prior.num_classes
    if (labels is None) != (num_classes == 0):
        given = "none were given" if labels is None else "they were given"
        raise ValueError(f"labels belong to a prior with num_classes; {given}, and num_classes={num_classes}")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (num,) or not np.isin(labels, np.arange(num_classes)).all():
            given = f"shape {labels.shape} and the values {np.unique(labels)[:9].tolist()}"
            raise ValueError(f"labels has {given}; wanted: [{num}], each a class from 0 to {num_classes - 1}")
    few, many = held_out_tenth(seed, num)
    rows, held_out = draws[:, many].reshape(-1, size), draws[0, few]
    of_rows, of_held_out = (None, None) if labels is None else (np.tile(labels[many], num_draws), labels[few])
    if prior is not None:
        return prior, _fitted(seed, prior, rows, held_out, of_rows, of_held_out)
    return choose(
        *rows.shape,
        lambda tried: (tried, _fitted(seed, tried, rows, held_out)),
        lambda found: mean_log_prob(*found, held_out),
        seconds,
    )


def held_out_tenth(seed: int, num: int) -> list[np.ndarray]:
    """Positions of the held-out data among `num`, and of those to fit."""
    return np.split(np.random.default_rng(seed).permutation(num), [max(1, num // 10)])


def _fitted(
    seed: int, prior: ClusteredPrior, z: np.ndarray, held_out: np.ndarray, of_z: np.ndarray | None = None,
    of_held_out: np.ndarray | None = None,
) -> Params:  # fmt: skip
    normal = dataclasses.replace(prior, shape="gaussian")
    gaussian = fit_gaussians(seed, normal, z, of_z)
    if prior.is_gaussian:
        return gaussian
    data, others = (
        (rows, expectation(normal, gaussian, rows, terms_of_labels(prior, own))[0])
        for rows, own in ((z, of_z), (held_out, of_held_out))
    )
    return fit_shapes(seed, prior, gaussian, data, others)


def choose(
    num: int, size: int, fit: Callable[[ClusteredPrior], _Fit], value: Callable[[_Fit], float], seconds: float
) -> _Fit:
    """The fit with the largest value, among priors of growing size that `num` rows of `size` columns can support.

    No larger mixture is tried after `seconds` of processor time, nor, of one kind of maps, after two sizes without a
    gain.
    """
    # Processor time: a busy machine must not choose a smaller mixture.
    started = time.process_time()
    best: Any = None
    for kind in _SIZES:
        since_best = 0
        for prior in _candidates(kind, num, size):
            if since_best == 2 or (best is not None and time.process_time() - started > seconds):
                break
            found = fit(prior)
            reached = value(found)
            since_best += 1
            if best is None or reached > best[0]:
                best, since_best = (reached, found), 0
    return best[1]


def _candidates(kind: Map, num: int, size: int) -> Iterator[ClusteredPrior]:
    for num_clusters in _SIZES[kind]:
        if num_clusters == 1 or num_clusters * _ROWS_PER_CLUSTER * size <= num:
            grid_size = min(60, max(12, _NUM_INTERVALS // (num_clusters * size)))
            yield ClusteredPrior(
                num_latents=size, num_clusters=num_clusters, map=kind, proportions="learned", grid_size=grid_size
            )
