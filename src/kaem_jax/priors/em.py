"""Expectation maximisation for the Gaussian part of a clustered prior (docs/method.md, section 14)."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kaem_jax.priors.affine import triangular_params
from kaem_jax.priors.base import Params
from kaem_jax.priors.clustered import ClusteredPrior

_FEWEST_AT_ONCE, _ROWS_AT_ONCE = 64, 4096
_ROWS_PER_CLUSTER = 500  # of the first iterations
MAX_ITERATIONS = 100
TOLERANCE = 1e-4  # nats for each coordinate: a smaller gain of the mean of log p(z) is the last
_MIN_VARIANCE = 1e-4  # in units of the mean variance of a coordinate: columns may depend on each other

Sums = tuple[Array, Array, Array]  # of p(c | z), p(c | z) z and p(c | z) z z': [C], [C, Q], [C, Q, Q]


def fit_gaussians(seed: int, prior: ClusteredPrior, z: np.ndarray, labels: np.ndarray | None = None) -> Params:
    """Fits location, map and proportions of each cluster by expectation maximisation from a k-means start.

    Args:
      seed: seed of the k-means start.
      prior: a prior with `shape="gaussian"`.
      z: float [N, Q].
      labels: int [N], the classes of `z`, for a prior with `num_classes`.
    """
    few = np.random.default_rng(seed).permutation(len(z))[: _ROWS_PER_CLUSTER * prior.num_clusters]
    terms, of_few = terms_of_labels(prior, labels), None if labels is None else labels[few]
    sums = weighted_sums(start(seed, prior, z[few], of_few), z[few])
    # For the first iterations, some latents for each cluster are enough.
    stages = [(z[few], terms_of_labels(prior, of_few)), (z, terms)] if len(few) < len(z) / 2 else [(z, terms)]
    for rows, own in stages:
        before = -np.inf
        for _ in range(MAX_ITERATIONS):
            params = maximise(prior, sums)
            share, log_p = expectation(prior, params, rows, own)
            sums, value = weighted_sums(share, rows), float(np.mean(log_p))
            if not value - before > TOLERANCE * prior.num_latents:
                break
            before = value
    return params


def terms_of_labels(prior: ClusteredPrior, labels: np.ndarray | None) -> np.ndarray | None:
    """Log p(label | c), [N, C]: 0 for clusters of the label's class, -inf for others; None without labels."""
    if labels is None:
        return None
    of_class = np.arange(prior.num_clusters) % prior.num_classes == np.asarray(labels)[:, None]
    return np.where(of_class, 0, -np.inf).astype(np.float32)


def expectation(
    prior: ClusteredPrior, params: Params, z: np.ndarray, terms: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """P(c | z) [N, C] and log p(z) [N] nats. `terms` [N, C] add log p(. | c) of other known values.

    Under diagonal maps, latents may be NaN: they are integrated out.
    """
    expect = _expect_known if np.isnan(z).any() else _expect
    found = [expect(prior, params, rows, own) for rows, own, _ in chunks(z, terms)]
    share, value = (
        np.concatenate([np.asarray(part) for part in parts])[: len(z)] for parts in zip(*found, strict=True)
    )
    return share, value


def mean_log_prob(prior: ClusteredPrior, params: Params, z: np.ndarray) -> float:
    """The mean of log p(z), nats."""
    return float(np.mean(expectation(prior, params, z)[1]))


def weighted_sums(share: np.ndarray, z: np.ndarray) -> Sums:
    """`sums_of` responsibilities [N, C] and latents [N, Q], in chunks."""
    parts = [sums_of(own, rows) for rows, own, _ in chunks(z, share)]
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def chunks(z: np.ndarray, terms: np.ndarray | None, most: int | None = None) -> Iterator[Any]:
    """Yields rows, their terms and a mask of real rows, padded to one size of at most `most` rows for one program."""
    size = min(
        _ROWS_AT_ONCE if most is None else most, max(_FEWEST_AT_ONCE, 1 << (len(z) - 1).bit_length())
    )  # few sizes are compiled
    terms = np.zeros((len(z), 1), np.float32) if terms is None else terms
    for first in range(0, len(z), size):
        rows, own = z[first : first + size], terms[first : first + size]
        padding = ((0, size - len(rows)), (0, 0))
        yield np.pad(rows, padding), np.pad(own, padding), np.arange(size) < len(rows)


@functools.partial(jax.jit, static_argnums=0)
def _expect(prior: ClusteredPrior, params: Params, z: Array, terms: Array) -> tuple[Array, Array]:
    return _normalised(prior.bind(params).log_joint(z) + terms)


@functools.partial(jax.jit, static_argnums=0)
def _expect_known(prior: ClusteredPrior, params: Params, z: Array, terms: Array) -> tuple[Array, Array]:
    is_known = ~jnp.isnan(z)
    return _normalised(prior.bind(params).log_joint_of_known(jnp.where(is_known, z, 0), is_known) + terms)


def _normalised(log_joint: Array) -> tuple[Array, Array]:
    return jax.nn.softmax(log_joint, axis=-1), jax.nn.logsumexp(log_joint, axis=-1)


@jax.jit
def sums_of(share: Array, z: Array) -> Sums:
    """Sums of responsibilities, and of z and z z' weighted by them."""
    weighted = share[:, :, None] * z[:, None]
    second = jnp.matmul(weighted.reshape(len(z), -1).T, z, precision="highest")
    return jnp.sum(share, axis=0), jnp.sum(weighted, axis=0), second.reshape(*weighted.shape[1:], -1)


def start(seed: int, prior: ClusteredPrior, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """One-hot responsibilities [N, C] from k-means, run separately for each class if there are labels."""
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import: only where it is used

    share = np.zeros((len(z), prior.num_clusters), np.float32)
    num_classes = prior.num_classes if labels is not None else 1
    for label in range(num_classes):
        rows = np.arange(len(z)) if labels is None else np.flatnonzero(labels == label)
        num = min(prior.num_clusters // num_classes, len(rows))
        if num:
            found = MiniBatchKMeans(num, random_state=seed, n_init=1, batch_size=2048).fit_predict(z[rows])
            share[rows, found * num_classes + label] = 1
    return share


def maximise(prior: ClusteredPrior, sums: Sums) -> Params:
    """The M step: parameters from the sums.

    Q pseudo-counts shrink each covariance towards the pooled one, which keeps those of small clusters regular.
    """
    count, first, second = (np.asarray(leaf, np.float64) for leaf in sums)
    size = prior.num_latents
    mean = first / np.maximum(count, 1e-6)[:, None]
    scatter = second - count[:, None, None] * mean[:, :, None] * mean[:, None]
    pooled = scatter.sum(axis=0) / count.sum()
    pooled += max(_MIN_VARIANCE * np.trace(pooled) / size, 1e-12) * np.eye(size)
    covariance = (scatter + size * pooled) / (count + size)[:, None, None]
    if prior.map == "diagonal":
        covariance *= np.eye(size)
    whitening = _whitening(covariance)
    if prior.map == "shared":
        common = _whitening(pooled)
        deviation = np.sqrt(np.einsum("qi,cij,qj->cq", common, covariance, common))
        whitening = common / deviation[..., None]
    params = triangular_params(prior.map, mean, whitening)
    if prior.proportions == "learned":
        params["logits"] = jnp.asarray(np.log(count + 1) - np.log(np.sum(count + 1)), float)
    return params


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """Lower triangular matrices T with T S T' = I for covariances S [..., Q, Q]."""
    return np.linalg.inv(np.linalg.cholesky(covariance))
