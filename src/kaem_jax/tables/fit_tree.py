"""Fits a tree of clusters to the rows of a table: Chow and Liu's structure, expectation maximisation, size by nats."""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csgraph

from kaem_jax.tables.density import Rows
from kaem_jax.tables.tree import CategoryLeaf, NumberLeaf, TableTree

SIZES = (1, 4, 10, 25, 60, 128)
_NUM_BINS, _MOST_BINS = 12, 6000  # of a number, and of all, by which information between columns is measured
_MOST_REGRESSORS = 12
_MINIBATCH, _NUM_EPOCHS, _FEWEST_UPDATES = 500, 20, 60
_RATES = (30.0, 0.5)  # share of new sums in the first and last update, times the number of minibatches
_MOST_RATE = 0.9
_PSEUDO = 0.3  # pseudo-count of a row of transitions
_TIED = 0.5  # share of the rows of a cluster that start in the same cluster of the next column
_LEAST_VARIANCE = 1e-8  # of standardised columns: some are sums of others
_NUM_FILLS = 10  # times that gaps are drawn from trees of one cluster before any other is fitted

Sums = tuple[np.ndarray, np.ndarray]  # of a column: counts of parent's clusters and its own [K, K], and those of a leaf


class _Structure(NamedTuple):
    """Columns in the order of the tree, positions of their parents in it, and their regressors."""

    columns: tuple[int, ...]  # numbers, then categories
    parents: tuple[int, ...]
    regressors: tuple[tuple[int, ...], ...]


class Tried(NamedTuple):
    """The best tree so far, and the mean of its log p over held-out rows, nats."""

    tree: TableTree
    value: float


def fit_tree(
    seed: int, rows: Rows, held_out: Rows, sizes: tuple[int, ...], num_clusters: Sequence[int],
    *, seconds: float = 40.0, start: Tried | None = None,
) -> Tried:  # fmt: skip
    """Fits trees of growing size until held-out rows gain no more.

    Args:
      seed: seed of starts, minibatches and draws of gaps.
      rows: the rows to fit.
      held_out: rows that choose.
      sizes: number of categories of each column.
      num_clusters: numbers of clusters of a column that are tried.
      seconds: the fit ends after this processor time.
      start: a smaller tree, fitted to the same rows.
    """
    rng, deadline = np.random.default_rng(seed), time.process_time() + seconds
    best: Any = start

    def filled(tree: TableTree) -> list[Rows]:
        """Both kinds of rows, with gaps drawn from a tree."""
        draws = (tree.fill(seed, part, 1) for part in (rows, held_out))
        return [Rows(z[0], codes[0]) for z, codes in draws]

    def fitted(size: int) -> TableTree:
        return _fitted(seed, _structure(parts[0], sizes), sizes, size, parts[0], parts[1], deadline)

    parts = filled(start.tree) if start else [part.hot_deck(rng) for part in (rows, held_out)]
    if start is None and rows.lack_cells.any():
        for _ in range(_NUM_FILLS):
            parts = filled(fitted(1))
    for size in num_clusters:
        if best and time.process_time() > deadline:
            break
        tree = fitted(size)
        value = float(np.mean(tree.log_prob(seed, held_out)))
        if best and not value > best.value:
            break
        best, parts = Tried(tree, value), filled(tree)
    return best


def _structure(rows: Rows, sizes: tuple[int, ...]) -> _Structure:
    """Chow and Liu's tree from its centre outwards, and the earlier numbers that say most of each number."""
    num_numbers = rows.z.shape[1]
    num_bins = min(_NUM_BINS, max(2, _MOST_BINS // rows.z.shape[1]))
    edges = np.quantile(rows.z, np.linspace(0, 1, num_bins + 1)[1:-1], axis=0)
    binned = [np.searchsorted(np.unique(own), column) for own, column in zip(edges.T, rows.z.T, strict=True)]
    information = _information(np.stack([*binned, *rows.codes.T], axis=1))
    far = information.max() + 1 - information
    np.fill_diagonal(far, 0)
    tree = csgraph.minimum_spanning_tree(far)
    hops = csgraph.shortest_path(tree, directed=False, unweighted=True)
    order, above = csgraph.breadth_first_order(tree, hops.max(axis=1).argmin(), directed=False)
    place = np.argsort(order)
    regressors = []
    for i, column in enumerate(order):
        earlier = [j for j in order[:i] if j < num_numbers and column < num_numbers]
        regressors.append(tuple(sorted(earlier, key=(-information[column]).__getitem__)[:_MOST_REGRESSORS]))
    return _Structure(tuple(order), (-1, *place[above[order[1:]]]), tuple(regressors))


def _information(codes: np.ndarray) -> np.ndarray:
    """The mutual information of columns [N, D], [D, D] nats."""
    ends = np.cumsum(codes.max(axis=0) + 1)
    first = np.append(0, ends[:-1])
    one_hot = np.zeros((len(codes), ends[-1]), np.float32)
    one_hot[np.arange(len(codes))[:, None], codes + first] = 1
    joint = (one_hot.T @ one_hot).astype(float) / len(codes)
    own = np.diag(joint)
    terms = joint * np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, np.outer(own, own), 1))
    return np.add.reduceat(np.add.reduceat(terms, first, axis=0), first, axis=1)


def _fitted(
    seed: int, structure: _Structure, sizes: tuple[int, ...], size: int, rows: Rows, held_out: Rows, deadline: float
) -> TableTree:
    """A tree of `size` clusters for each column by stochastic EM (Cappe and Moulines, 2009), best on held-out rows."""
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import: only where it is used

    share = np.ones((len(rows), 1), np.float32)
    if size > 1:
        one_hot = [np.eye(num, dtype=np.float32)[codes] for num, codes in zip(sizes, rows.codes.T, strict=True)]
        start = MiniBatchKMeans(min(size, len(rows)), random_state=seed, n_init=1, batch_size=2048)
        share = np.eye(size, dtype=np.float32)[start.fit_predict(np.concatenate([rows.z, *one_hot], axis=1))]
    overall, num = share.mean(axis=0), len(rows)
    pairs = num * overall[:, None] * (_TIED * np.eye(size) + (1 - _TIED) * overall)
    sums = [
        (num * overall[None] if parent < 0 else pairs, of_leaf)
        for parent, of_leaf in zip(
            structure.parents, _leaf_sums(structure, sizes, rows, [share] * len(structure.columns)), strict=True
        )
    ]
    tree = _maximum(structure, rows.z.shape[1], sums)
    num_batches = max(1, num // _MINIBATCH)
    num_epochs = max(_NUM_EPOCHS, -(-_FEWEST_UPDATES // num_batches)) if size > 1 else 1
    best = (-np.inf, tree)
    rng, rates = np.random.default_rng(seed), np.geomspace(*_RATES, num_epochs * num_batches) / num_batches
    for epoch in range(num_epochs):
        for batch, part in enumerate(np.array_split(rng.permutation(num), num_batches)):
            rate = min(_MOST_RATE, rates[epoch * num_batches + batch])
            new = _expected_sums(structure, sizes, tree, rows[part])
            scale = rate * num / len(part)
            sums = [
                tuple((1 - rate) * old + scale * own for old, own in zip(*pair, strict=True))
                for pair in zip(sums, new, strict=True)
            ]
            tree = _maximum(structure, rows.z.shape[1], sums)
        if (value := float(np.mean(tree.log_prob(seed, held_out)))) > best[0]:
            best = value, tree
        if time.process_time() > deadline:
            break
    return best[1]


def _expected_sums(structure: _Structure, sizes: tuple[int, ...], tree: TableTree, rows: Rows) -> list[Sums]:
    """The E step, from the root to the leaves."""
    found = tree.messages(rows)
    shares: list[np.ndarray] = []
    counts = []
    for i, transition in enumerate(tree.transitions):
        above = (shares[tree.parents[i]] if i else 1) / found.above[i]
        counts.append(transition * (above.T @ found.below[i]))
        shares.append(found.below[i] * (above @ transition))
    return list(zip(counts, _leaf_sums(structure, sizes, rows, shares), strict=True))


def _leaf_sums(structure: _Structure, sizes: tuple[int, ...], rows: Rows, shares: list[np.ndarray]) -> list[np.ndarray]:
    """Counts of categories [K, size], or sums of products of 1, the regressors and the number, [K, r + 2, r + 2]."""
    result, num_numbers = [], rows.z.shape[1]
    for column, regressors, share in zip(structure.columns, structure.regressors, shares, strict=True):
        if column >= num_numbers:
            place = column - num_numbers
            result.append(share.T @ np.eye(sizes[place], dtype=np.float32)[rows.codes[:, place]])
        else:
            own = rows.z[:, [*regressors, column]].astype(float)
            own = np.concatenate([np.ones((len(own), 1)), own], axis=1)
            row, other = _triangle(own.shape[1])
            products = np.empty((len(share.T), own.shape[1], own.shape[1]))
            products[:, row, other] = products[:, other, row] = share.T.astype(float) @ (own[:, row] * own[:, other])
            result.append(products)
    return result


_triangle = functools.cache(np.triu_indices)


def _maximum(structure: _Structure, num_numbers: int, sums: Sequence[Sums]) -> TableTree:
    """The M step. Pseudo-counts, distributed like all rows, keep what small clusters learn regular."""
    transitions: list[np.ndarray] = []
    leaves: list[NumberLeaf | CategoryLeaf] = []
    for column, regressors, (counts, of_leaf) in zip(structure.columns, structure.regressors, sums, strict=True):
        counts, of_leaf = counts.astype(float), of_leaf.astype(float)
        transition = counts + _PSEUDO * counts.sum(axis=0) / counts.sum()
        transitions.append((transition / transition.sum(axis=1, keepdims=True)).astype(np.float32))
        if column >= num_numbers:
            overall = (of_leaf.sum(axis=0) + 1) / (of_leaf.sum() + of_leaf.shape[1])
            theta = of_leaf + 0.5 * of_leaf.shape[1] * overall
            log_theta = np.log(theta / theta.sum(axis=1, keepdims=True))
            leaves.append(CategoryLeaf(column - num_numbers, log_theta.astype(np.float32)))
        else:
            count, first, second = of_leaf[:, 0, 0], of_leaf[:, 0, 1:], of_leaf[:, 1:, 1:]
            mean = first / np.maximum(count, 1e-6)[:, None]
            scatter = second - count[:, None, None] * mean[:, :, None] * mean[:, None]
            pooled = scatter.sum(axis=0) / count.sum()
            extra = 1 + scatter.shape[-1]
            covariance = (scatter + extra * pooled) / (count + extra)[:, None, None]
            covariance += _LEAST_VARIANCE * np.eye(scatter.shape[-1])
            leaves.append(NumberLeaf(column, regressors, mean, covariance))
    return TableTree(num_numbers, structure.parents, tuple(transitions), tuple(leaves))
