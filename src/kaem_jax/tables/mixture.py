"""The density of a table by a mixture: a clustered prior over its numbers, and shares of categories by cluster.

    p(x) = sum_c pi_c p_c(numbers) prod_k theta_{c,k}(category k)

Expectation maximisation with gaps is exact for the Gaussian part of the clusters (Ghahramani and Jordan, 1994). The
shapes are then fitted to rows whose gaps are filled by draws. Log p of a row is exact without gaps or with diagonal
maps. Elsewhere it is that of the Gaussian part, corrected by importance sampling of the gaps.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import special

from kaem_jax.priors import affine
from kaem_jax.priors.base import Params, log_proportions
from kaem_jax.priors.bound_clusters import BoundClusters
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.priors.em import MAX_ITERATIONS, TOLERANCE, Sums, chunks, expectation, maximise, start, weighted_sums
from kaem_jax.priors.fit_prior import choose
from kaem_jax.priors.shapes import fit_shapes
from kaem_jax.tables.density import Density, Rows, draw_categories, hot_deck, mean_weight, resampled

_ENTRIES_AT_ONCE = 2**21  # entries of the matrices of rows with gaps
_MOST_COLUMNS = 60  # with more, densities stay normal: the axes of so many take minutes to find
_NUM_DRAWS = 32  # of the gaps of a row, by which its log p is corrected


@dataclasses.dataclass(frozen=True)
class TableMixture(Density):
    """A fitted density.

    Attributes:
      prior: the prior of the numbers.
      gaussian: parameters of its Gaussian part, `dataclasses.replace(prior, shape="gaussian")`.
      log_theta: log-probabilities of the categories of each column, [C, size] nats.
    """

    prior: ClusteredPrior
    params: Params
    gaussian: Params
    log_theta: tuple[np.ndarray, ...]

    @property
    def num_clusters(self) -> int:
        return self.prior.num_clusters

    def estimate(self, seed: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        return self._infer(seed, rows)[1:]

    def responsibilities(self, seed: int, rows: Rows) -> np.ndarray:
        return self._infer(seed, rows)[0]

    def _infer(self, seed: int, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P(c | known cells) [N, C], log p of these cells and its error, [N] nats."""
        terms, is_empty = _terms(self.log_theta, rows.codes), np.isnan(rows.z).all(axis=1)
        is_sampled = self._is_sampled(rows) & ~is_empty
        log_joint = np.asarray(self._bound.table.log_proportions) + terms  # of a row without numbers
        share, value = special.softmax(log_joint, axis=1), special.logsumexp(log_joint, axis=1)
        error = np.zeros(len(rows))
        if (is_exact := ~is_sampled & ~is_empty).any():
            exact = expectation(self.prior, self.params, rows.z[is_exact], terms[is_exact])
            share[is_exact], value[is_exact] = exact
        if is_sampled.any():
            found = self._fill(seed, rows[is_sampled], _NUM_DRAWS, is_shared=True)
            share[is_sampled], value[is_sampled], error[is_sampled] = found[1].mean(axis=0), *found[2:]
        return share, value, error

    def fill(self, seed: int, rows: Rows, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of whole rows given their known cells: numbers [S, N, Q] and codes [S, N, K]."""
        terms, is_sampled = _terms(self.log_theta, rows.codes), self._is_sampled(rows)
        z = np.repeat(rows.z[None], num_draws, axis=0)
        share = np.empty((*z.shape[:2], self.prior.num_clusters))
        if not is_sampled.all():
            share[:, ~is_sampled] = expectation(self.prior, self.params, rows.z[~is_sampled], terms[~is_sampled])[0]
        if is_sampled.any():
            z[:, is_sampled], share[:, is_sampled], *_ = self._fill(seed, rows[is_sampled], num_draws)
        rng = np.random.default_rng(seed)
        cluster = draw_categories(rng, np.log(np.maximum(share, 1e-30)))
        if np.isnan(z).any():
            of_clusters = self._bound.sample_of_cluster(jax.random.key(seed), jnp.asarray(cluster, jnp.int32))
            z = np.where(np.isnan(z), of_clusters, z)
        return z, np.where(rows.codes < 0, self._codes(rng, cluster), rows.codes)

    def coordinates(self, z: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """The coordinates of numbers [N, Q] in the axes of the clusters [N]: [N, Q]."""
        parts = [np.asarray(self._bound.coordinates_of_clusters(part))[counts] for part, _, counts in chunks(z, None)]
        return np.concatenate(parts)[np.arange(len(z)), cluster]

    def numbers_at(self, y: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        return np.asarray(self._bound.place(jnp.asarray(cluster, jnp.int32), jnp.asarray(y, float)))

    def sample(self, seed: int, num: int) -> Rows:
        z, cluster = self._bound.sample_with_cluster(jax.random.key(seed), num)
        return Rows(np.asarray(z), self._codes(np.random.default_rng(seed), np.asarray(cluster)))

    @functools.cached_property
    def _bound(self) -> BoundClusters:
        return self.prior.bind(self.params)

    def _is_sampled(self, rows: Rows) -> np.ndarray:
        """Which rows have gaps without a closed-form integral, bool [N]."""
        return rows.has_gaps & (self.prior.map != "diagonal")

    def _codes(self, rng: np.random.Generator, cluster: np.ndarray) -> np.ndarray:
        columns = [draw_categories(rng, log_theta[cluster]) for log_theta in self.log_theta]
        return np.stack(columns, axis=-1) if columns else np.zeros((*cluster.shape, 0), int)

    def _fill(
        self, seed: int, rows: Rows, num_draws: int, is_shared: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws z [S, N, Q] given the known cells, p(c | z, known codes) [S, N, C], log p [N] and its error."""
        normal, terms = _normal(self.prior), _terms(self.log_theta, rows.codes)
        # `_NUM_DRAWS` proposals correct log p. Draws need at least as many proposals, from which they are resampled.
        num = max(num_draws, _NUM_DRAWS)
        proposed, log_known = _propose(normal, self.gaussian, seed, rows.z, terms, num, is_shared)
        flat, wide = proposed.reshape(-1, proposed.shape[-1]), np.tile(terms, (len(proposed), 1))
        share, log_p = expectation(self.prior, self.params, flat, wide)
        ratio = log_p - expectation(normal, self.gaussian, flat, wide)[1]
        ratio, share = ratio.reshape(proposed.shape[:2]), share.reshape(*proposed.shape[:2], -1)
        index, row = resampled(seed, ratio, num_draws), np.arange(len(rows))
        correction, error = mean_weight(ratio)
        return proposed[index, row], share[index, row], log_known + correction, error


def fit_mixture(
    seed: int,
    rows: Rows,
    held_out: Rows,
    sizes: tuple[int, ...],
    prior: ClusteredPrior | None = None,
    *,
    seconds: float = 40.0,
) -> TableMixture:
    """Fits a density to the rows of a table by maximum likelihood.

    Args:
      seed: seed of initial values and of draws of gaps.
      rows: the rows to fit.
      held_out: rows that choose the clusters, their maps, axes and shapes.
      sizes: number of categories of each column.
      prior: the prior of the numbers; None chooses it.
      seconds: without `prior`, no larger mixture is tried after this processor time.
    """

    def fit(prior: ClusteredPrior) -> TableMixture:
        return _fitted(seed, prior, rows, held_out, sizes)

    if prior is not None:
        return fit(prior)
    return choose(
        len(rows), rows.z.shape[1], fit, lambda found: float(np.mean(found.log_prob(seed, held_out))), seconds
    )


def _fitted(seed: int, prior: ClusteredPrior, rows: Rows, held_out: Rows, sizes: tuple[int, ...]) -> TableMixture:
    normal = _normal(prior)
    gaussian, log_theta = _maximum(seed, normal, rows, sizes)
    if prior.is_gaussian or prior.num_latents > _MOST_COLUMNS:
        return TableMixture(normal, gaussian, gaussian, log_theta)

    def filled(part: Rows) -> tuple[np.ndarray, np.ndarray]:
        terms = _terms(log_theta, part.codes)
        z = _propose(normal, gaussian, seed, part.z, terms, 1)[0][0] if part.has_gaps.any() else part.z
        return z, expectation(normal, gaussian, z, terms)[0]

    return TableMixture(prior, fit_shapes(seed, prior, gaussian, filled(rows), filled(held_out)), gaussian, log_theta)


def _maximum(
    seed: int, normal: ClusteredPrior, rows: Rows, sizes: tuple[int, ...]
) -> tuple[Params, tuple[np.ndarray, ...]]:
    """Parameters of the Gaussian part and shares of categories, by expectation maximisation."""
    gaps, rng = rows.has_gaps, np.random.default_rng(seed)
    whole, lacking = rows[~gaps], rows[gaps]
    guess = hot_deck(rng, rows.z)
    known = [
        np.eye(size + 1, dtype=np.float32)[codes][:, :size] for size, codes in zip(sizes, rows.codes.T, strict=True)
    ]
    share = start(seed, normal, np.concatenate([guess, *known], axis=1))
    sums = weighted_sums(share, guess)
    before = -np.inf
    for _ in range(MAX_ITERATIONS):
        params = maximise(normal, sums)
        log_theta = tuple(_log_shares(share, one) for one in known)
        terms = _terms(log_theta, rows.codes)
        share = np.empty_like(share)
        parts: list[Any] = []
        if len(whole):
            share[~gaps], log_p = expectation(normal, params, whole.z, terms[~gaps])
            parts.append((weighted_sums(share[~gaps], whole.z), float(log_p.sum())))
        if len(lacking):
            share[gaps], *part = _sums_with_gaps(normal, params, lacking.z, terms[gaps])
            parts.append(tuple(part))
        sums = _total(part[0] for part in parts)
        value = sum(part[1] for part in parts) / len(rows)
        if not value - before > TOLERANCE * (normal.num_latents + len(sizes)):
            break
        before = value
    return params, log_theta


def _total(trees: Iterable[Any]) -> Any:
    return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), trees)


def _normal(prior: ClusteredPrior) -> ClusteredPrior:
    return dataclasses.replace(prior, shape="gaussian")


def _log_shares(share: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log theta [C, size] of one column, with one pseudo-count distributed like all rows."""
    overall = (known.sum(axis=0) + 1) / (known.sum() + known.shape[1])
    count = share.T @ known + overall
    return np.log(count / count.sum(axis=1, keepdims=True))


def _terms(log_theta: tuple[np.ndarray, ...], codes: np.ndarray) -> np.ndarray:
    """Log-probability of the known categories of each row in each cluster, float32 [N, C]."""
    total = np.zeros((len(codes), 1), np.float32)
    for own, code in zip(log_theta, codes.T, strict=True):
        total = total + np.where(code < 0, 0, own[:, code]).T
    return total.astype(np.float32)


class _Given(NamedTuple):
    """Normal distributions given the known numbers of rows [N, ...] in each cluster."""

    log_joint: Array  # [N, C], of the known numbers and the cluster
    mean: Array  # [N, C, Q]
    covariance: Array  # [N, C, Q, Q]; 0 where numbers are known


def _given(normal: ClusteredPrior, params: Params, z: Array) -> _Given:
    inverse = shared = affine.inverse_of(normal.map, params)
    size, mean = normal.num_latents, params["location"]
    if inverse is None or inverse.ndim == 2:
        spread = jnp.exp(-params["log_scale"])[..., None] * jnp.eye(size, dtype=z.dtype)
        inverse = spread if inverse is None else jnp.matmul(inverse, spread, precision="highest")
        mean = mean if shared is None else jnp.matmul(mean, shared.T, precision="highest")
    covariance = jnp.einsum("cij,ckj->cik", inverse, inverse, precision="highest")

    def one(z: Array) -> tuple[Array, Array, Array]:
        known = ~jnp.isnan(z)
        both = known[:, None] & known
        gap = jnp.where(known, z - mean, 0)  # [C, Q]
        factor = jnp.linalg.cholesky(jnp.where(both, covariance, 0) + jnp.diag(jnp.where(known, 0.0, 1.0)))
        cross = jnp.where(known, covariance, 0)  # of all numbers with the known ones
        # All right-hand sides in one call: two calls at once deadlock on two threads in jaxlib 0.10.
        right = jnp.concatenate([gap[..., None], jnp.swapaxes(cross, -1, -2)], axis=-1)
        both_solved = jax.vmap(lambda lower, right: jax.scipy.linalg.cho_solve((lower, True), right))(factor, right)
        solved, gain = both_solved[..., 0], both_solved[..., 1:]
        log_scale = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        log_p = (
            -0.5 * jnp.sum(gap * solved, axis=-1)
            - log_scale
            - 0.5 * jnp.sum(known, dtype=z.dtype) * math.log(2 * math.pi)
        )
        given = mean + jnp.einsum("cij,cj->ci", cross, solved, precision="highest")
        rest = covariance - jnp.matmul(cross, gain, precision="highest")
        unknown = ~known[:, None] & ~known
        return log_p, jnp.where(known, z, given), jnp.where(unknown, rest, 0)

    log_p, given, rest = jax.vmap(one)(z)
    return _Given(log_p + log_proportions(params, (normal.num_clusters,)), given, rest)


@functools.partial(jax.jit, static_argnums=0)
def _sums_of_chunk(
    normal: ClusteredPrior, params: Params, z: Array, terms: Array, counts: Array
) -> tuple[Array, Sums, Array]:
    given = _given(normal, params, z)
    log_joint = given.log_joint + terms
    share = jnp.where(counts[:, None], jax.nn.softmax(log_joint, axis=-1), 0)
    second = given.covariance + given.mean[..., :, None] * given.mean[..., None, :]
    sums = (
        jnp.sum(share, axis=0),
        jnp.einsum("nc,ncq->cq", share, given.mean, precision="highest"),
        jnp.einsum("nc,ncqp->cqp", share, second, precision="highest"),
    )
    return share, sums, jnp.sum(jnp.where(counts, jax.nn.logsumexp(log_joint, axis=-1), 0))


def _chunks(normal: ClusteredPrior, z: np.ndarray, terms: np.ndarray) -> Iterator[Any]:
    return chunks(z, terms, max(1, _ENTRIES_AT_ONCE // (normal.num_clusters * normal.num_latents**2)))


def _sums_with_gaps(
    normal: ClusteredPrior, params: Params, z: np.ndarray, terms: np.ndarray
) -> tuple[np.ndarray, Sums, float]:
    """Responsibilities of rows with gaps, their expected sums, and the sum of log p of their known cells."""
    # One program at a time: two would share the threads of their solves.
    found = [jax.block_until_ready(_sums_of_chunk(normal, params, *chunk)) for chunk in _chunks(normal, z, terms)]
    share = np.concatenate([np.asarray(part[0]) for part in found])[: len(z)]
    sums, value = _total(part[1:] for part in found)
    return share, sums, float(value)


_conditionals = jax.jit(_given, static_argnums=0)


def _propose(
    normal: ClusteredPrior, params: Params, seed: int, z: np.ndarray, terms: np.ndarray, num_draws: int,
    is_shared: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draws [S, N, Q] of whole rows given their known cells, under the Gaussian part, and log p of these cells [N].

    With `is_shared` all rows have the same noise, so that log p of a row does not depend on its place among others.
    """
    rng, draws, log_known = np.random.default_rng(seed), [], []
    for rows, own, counts in _chunks(normal, z, terms):
        if is_shared:
            rng = np.random.default_rng(seed)
        given = jax.tree.map(lambda leaf, counts=counts: np.asarray(leaf)[counts], _conditionals(normal, params, rows))
        log_joint, rows = given.log_joint + own[counts], rows[counts]
        lead = (num_draws, 1 if is_shared else len(rows))
        cluster = np.argmax(log_joint + rng.gumbel(size=(*lead, normal.num_clusters)), axis=-1)
        # Known numbers have no variance, and the noise there is 0.
        is_gap = np.isnan(rows)
        ridge = np.where(is_gap, 1e-7, 1.0)[:, None, :, None] * np.eye(z.shape[1], dtype=np.float32)
        factor, row = np.linalg.cholesky(given.covariance + ridge), np.arange(len(rows))
        noise = np.where(is_gap, rng.standard_normal((*lead, z.shape[1]), np.float32), 0)
        pairs = zip(cluster, noise, strict=True)
        spread = np.stack([(factor[row, one] @ own[..., None])[..., 0] for one, own in pairs])
        draws.append(np.where(is_gap, given.mean[row, cluster] + spread, rows))
        log_known.append(special.logsumexp(log_joint, axis=-1))
    return np.concatenate(draws, axis=1).astype(np.float32), np.concatenate(log_known)
