"""The density of a table by a tree of clusters.

Each column i has a cluster z_i of its own, and the clusters form a tree over the columns:

    p(x) = sum_z prod_i p(z_i | z_parent(i)) p(x_i | z_i, earlier columns)

Numbers are normal around a linear regression on earlier numbers, categories have probabilities. Where all z_i are equal
this is a mixture of normal distributions; without regressions it is a hidden Chow-Liu tree (Liu and Van den Broeck,
2021). Sums over z pass messages from the leaves to the root.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from kaem_jax.tables.density import Density, Rows, draw_categories, mean_weight, resampled

_ROWS_AT_ONCE, _ENTRIES_AT_ONCE = 2000, 2**22
_NUM_DRAWS = 32  # of the clusters of a row with gaps, by which its log p is estimated


@dataclasses.dataclass(frozen=True)
class NumberLeaf:
    """A column of numbers: normal together with its regressors in each cluster.

    Attributes:
      column: its position among the numbers.
      regressors: positions of r numbers that come earlier in the tree.
      mean: of the regressors and of the column itself, which is last, [K, r + 1].
      covariance: of the same, [K, r + 1, r + 1].
    """

    column: int
    regressors: tuple[int, ...]
    mean: np.ndarray
    covariance: np.ndarray

    def log_prob(self, rows: Rows) -> np.ndarray:
        """Log p(number | cluster, known regressors), [N, K]; 0 where it is missing."""
        x, given = rows.z[:, self.column], rows.z[:, self.regressors]
        is_known = ~np.isnan(given)
        if is_known.all() and not np.isnan(x).any():
            return _log_normal(x, given, *self.whole)
        result = np.zeros((len(x), len(self.mean)), x.dtype)
        patterns, which = np.unique(is_known, axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            own, at = np.flatnonzero((which.ravel() == i) & ~np.isnan(x)), np.flatnonzero(pattern)
            result[own] = _log_normal(x[own], given[own[:, None], at], *self.regression(at))
        return result

    def regression(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the regressors `at` and the constant, [K, at + 1], and log deviations of the rest, [K]."""
        cross, covariance = self.covariance[:, -1, at], self.covariance[:, at[:, None], at]
        slope = np.linalg.solve(covariance, cross[..., None])[..., 0]
        variance = self.covariance[:, -1, -1] - np.sum(slope * cross, axis=1)
        constant = self.mean[:, -1] - np.sum(slope * self.mean[:, at], axis=1)
        return np.concatenate([slope, constant[:, None]], axis=1), 0.5 * np.log(variance)

    @functools.cached_property
    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """The regression on all regressors."""
        return self.regression(np.arange(len(self.regressors)))


@dataclasses.dataclass(frozen=True)
class CategoryLeaf:
    """A column of categories.

    Attributes:
      column: its position among the categories.
      log_theta: log-probabilities in each cluster, [K, size].
    """

    column: int
    log_theta: np.ndarray

    def log_prob(self, rows: Rows) -> np.ndarray:
        """Log p(category | cluster), [N, K]; 0 where it is missing."""
        code = rows.codes[:, self.column]
        return np.where(code[:, None] < 0, 0, self.log_theta[:, code].T).astype(rows.z.dtype)


@dataclasses.dataclass(frozen=True)
class Messages:
    """What rows say of the clusters, for each of D columns in the order of the tree.

    Attributes:
      log_prob: log p of the rows, [N] nats.
      below: what the cells of the column and of those below it say of its cluster, up to a factor, [N, K] each.
      above: the same of the parent's cluster, [N, K] each.
    """

    log_prob: np.ndarray
    below: list[np.ndarray]
    above: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class TableTree(Density):
    """A fitted density.

    Attributes:
      num_numbers: Q.
      parents: position of each column's parent, earlier than its own; the root's is -1.
      transitions: p(cluster | parent's cluster), [K, K] for each column and [1, K] for the root.
      leaves: the distributions of the cells given their clusters, in the order of the tree.
    """

    num_numbers: int
    parents: tuple[int, ...]
    transitions: tuple[np.ndarray, ...]
    leaves: tuple[NumberLeaf | CategoryLeaf, ...]

    @property
    def num_clusters(self) -> int:
        return self.transitions[0].shape[1]

    def messages(self, rows: Rows) -> Messages:
        """Messages from the leaves to the root. With gaps, regressions leave out missing regressors."""
        log_below = [leaf.log_prob(rows) for leaf in self.leaves]
        below, above, total = [*log_below], [*log_below], np.zeros(len(rows))  # both lists are filled from the end
        for i in reversed(range(len(self.leaves))):
            top = log_below[i].max(axis=1, keepdims=True)
            below[i] = np.exp(log_below[i] - top)
            above[i] = np.maximum(below[i] @ self.transitions[i].T, np.finfo(np.float32).tiny)
            total += top[:, 0]
            if i:
                log_below[self.parents[i]] += np.log(above[i])
        return Messages(total + np.log(above[0][:, 0]), below, above)

    def estimate(self, seed: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Log p, exact for rows whose numbers are known.

        Otherwise clusters are drawn in the order of the tree, and numbers are integrated out given all clusters.
        """
        value, error, gaps = np.empty(len(rows)), np.zeros(len(rows)), self._is_sampled(rows)
        for part in _parts(np.flatnonzero(~gaps), _ROWS_AT_ONCE):
            value[part] = self.messages(rows[part]).log_prob
        for part in _parts(np.flatnonzero(gaps), self._rows_at_once(_NUM_DRAWS)):
            rng = np.random.default_rng(seed)  # all rows have the same noise, wherever they stand
            value[part], error[part] = mean_weight(self._clusters(rng, rows[part], _NUM_DRAWS, is_shared=True)[1])
        return value, error

    def responsibilities(self, seed: int, rows: Rows) -> np.ndarray:
        return np.ones((len(rows), 1))

    def fill(self, seed: int, rows: Rows, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        z, codes = (np.repeat(cells[None], num_draws, axis=0) for cells in (rows.z, rows.codes))
        rng = np.random.default_rng(seed)
        num = num_draws if self.num_clusters == 1 else max(num_draws, _NUM_DRAWS)  # weights of one cluster are equal
        for part in _parts(np.flatnonzero(rows.lack_cells), self._rows_at_once(num)):
            own = rows[part]
            clusters, log_weight = self._clusters(rng, own, num)
            chosen = resampled(int(rng.integers(2**31)), log_weight, num_draws)
            clusters = clusters[chosen, np.arange(len(part))]
            if own.has_gaps.any():
                mean, factor, _ = self._given(own.z, clusters)
                noise = np.where(np.isnan(own.z), rng.standard_normal(mean.shape), 0)[..., None]
                drawn = mean + np.linalg.solve(np.swapaxes(factor, -1, -2), noise)[..., 0]
                z[:, part] = np.where(np.isnan(own.z), drawn, own.z)
            for i, leaf in enumerate(self.leaves):
                if isinstance(leaf, CategoryLeaf):
                    drawn = draw_categories(rng, leaf.log_theta[clusters[..., i]])
                    codes[:, part, leaf.column] = np.where(
                        own.codes[:, leaf.column] < 0, drawn, own.codes[:, leaf.column]
                    )
        return z, codes

    def sample(self, seed: int, num: int) -> Rows:
        rng = np.random.default_rng(seed)
        clusters = np.zeros((num, len(self.leaves) + 1), int)  # the last belongs to no column: the root's parent
        z = np.zeros((num, self.num_numbers))
        codes = np.zeros((num, len(self.leaves) - self.num_numbers), int)
        for i, (parent, transition, leaf) in enumerate(zip(self.parents, self.transitions, self.leaves, strict=True)):
            clusters[:, i] = own = _draw(rng.random((num, 1)), transition[clusters[:, parent]])
            if isinstance(leaf, CategoryLeaf):
                codes[:, leaf.column] = draw_categories(rng, leaf.log_theta[own])
            else:
                weights, log_scale = leaf.whole
                mean = np.sum(weights[own, :-1] * z[:, leaf.regressors], axis=1) + weights[own, -1]
                z[:, leaf.column] = mean + np.exp(log_scale[own]) * rng.standard_normal(num)
        return Rows(z.astype(np.float32), codes)

    def _is_sampled(self, rows: Rows) -> np.ndarray:
        """Which rows lack a regressor of a known number, bool [N]."""
        result = np.zeros(len(rows), bool)
        for leaf in self.leaves:
            if isinstance(leaf, NumberLeaf):
                result |= np.isnan(rows.z[:, leaf.regressors]).any(axis=1) & ~np.isnan(rows.z[:, leaf.column])
        return result

    def _rows_at_once(self, num_draws: int) -> int:
        return max(1, _ENTRIES_AT_ONCE // (num_draws * max(self.num_numbers**2, self.num_clusters)))

    def _clusters(
        self, rng: np.random.Generator, rows: Rows, num: int, is_shared: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the clusters [S, N, D] by the messages, and log-weights whose exponentials average to p, [S, N]."""
        found, row = self.messages(rows), np.arange(len(rows))
        clusters, log_weight = np.zeros((num, len(rows), len(self.leaves) + 1), int), np.zeros((num, len(rows)))
        for i, (parent, transition) in enumerate(zip(self.parents, self.transitions, strict=True)):
            up, u = clusters[..., parent], rng.random((num, 1 if is_shared else len(rows), 1))
            clusters[..., i] = own = _draw(u, transition[up] * found.below[i])
            log_weight += np.log(found.above[i][row, up]) - np.log(found.below[i][row, own])
            if isinstance(leaf := self.leaves[i], CategoryLeaf):
                log_weight += leaf.log_prob(rows)[row, own]
        return clusters[..., :-1], log_weight + self._given(rows.z, clusters)[2]

    def _given(self, z: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of missing numbers given the clusters [S, N, D] and the known ones of z [N, Q].

        Returns their means [S, N, Q], the Cholesky factors of their precisions [S, N, Q, Q], where known numbers have
        an identity, and log p of the known numbers given the clusters, [S, N].
        """
        # Residuals over their deviations are matrix x - rest, of which known numbers are taken out.
        lead, size = clusters.shape[:2], self.num_numbers
        matrix, rest, log_p = np.zeros((*lead, size, size)), np.zeros((*lead, size)), np.zeros(lead)
        for i, leaf in enumerate(self.leaves):
            if isinstance(leaf, NumberLeaf):
                weights, log_scale = (part[clusters[..., i]] for part in leaf.whole)
                inverse = np.exp(-log_scale)[..., None]
                matrix[..., leaf.column, leaf.column] = inverse[..., 0]
                matrix[..., leaf.column, leaf.regressors] = -weights[..., :-1] * inverse
                rest[..., leaf.column] = weights[..., -1] * inverse[..., 0]
                log_p -= log_scale
        gap = np.isnan(z)
        rest -= (matrix @ np.nan_to_num(z)[..., None])[..., 0]
        matrix *= gap[:, None]
        transposed = np.swapaxes(matrix, -1, -2)
        precision = transposed @ matrix + np.eye(size) * ~gap[:, None]
        factor, right = np.linalg.cholesky(precision), transposed @ rest[..., None]
        mean = np.linalg.solve(precision, right)
        log_p -= 0.5 * (np.sum(rest**2, axis=-1) - np.sum(right * mean, axis=(-2, -1)))
        log_p -= np.sum(np.log(np.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        return mean[..., 0], factor, log_p - 0.5 * math.log(2 * math.pi) * np.sum(~gap, axis=-1)


def _log_normal(x: np.ndarray, given: np.ndarray, weights: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    weights, log_scale = weights.astype(x.dtype), log_scale.astype(x.dtype)
    rest = (x[:, None] - (given @ weights[:, :-1].T + weights[:, -1])) * np.exp(-log_scale)
    return -0.5 * rest**2 - (log_scale + np.float32(0.5 * math.log(2 * math.pi)))


def _draw(u: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A draw for each of the distributions p [..., K], up to their factors, by uniform numbers u [..., 1]."""
    total = np.cumsum(p, axis=-1, dtype=float)
    return np.sum(total[..., :-1] < u * total[..., -1:], axis=-1)


def _parts(index: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (index[first : first + size] for first in range(0, len(index), size))
