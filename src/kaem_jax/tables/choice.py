"""Chooses what fits a table on held-out rows: the columns' transform, a mixture or a tree, and its size."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from kaem_jax.priors.affine import Map
from kaem_jax.priors.clustered import ClusteredPrior
from kaem_jax.tables import frames
from kaem_jax.tables.density import Density
from kaem_jax.tables.fit_tree import SIZES, Tried, fit_tree
from kaem_jax.tables.mixture import TableMixture, fit_mixture

_HELD_OUT = 0.2  # of the rows
_NUM_SMALL, _SHARE = 3, 0.15  # sizes of trees by which transforms are compared, and the share of seconds of each
_MOST_COLUMNS = 200  # with more, trees of one cluster alone compare transforms
_FEW_HELD_OUT, _NUM_FOLDS = 100, 5  # with fewer held-out rows, transforms are compared on so many splits


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
      columns: how columns become values of the density.
      density: the density.
      mixture: the mixture that was fitted beside a tree; None if only a tree was asked for.
      many, few: positions of the rows to fit and of the held-out ones.
    """

    columns: frames.TableColumns
    density: Density
    mixture: TableMixture | None
    many: np.ndarray
    few: np.ndarray


def fit_density(
    seed: int, table: Mapping[str, np.ndarray], bounds: Mapping[str, frames.Limits],
    method: Literal["mixture", "tree"] | None, num_clusters: int | None, kind: Map, seconds: float,
) -> Choice:  # fmt: skip
    """Fits the density of a table; see `TableDensity` for the arguments."""
    started = time.process_time()
    method = method or (None if num_clusters is None else "mixture")
    cells = frames.blurred(seed, frames.described(table, "standard", bounds), table)
    described = {transform: frames.described(cells, transform, bounds) for transform in ("power", "standard")}
    sizes = tuple(column.size for column in described["power"] if column.categories)
    folds = list(_folds(seed, len(next(iter(table.values())))))
    # A given size is fitted whatever time it takes, so that machines agree.
    seconds = seconds if num_clusters is None else math.inf
    small = SIZES[:_NUM_SMALL] if len(table) <= _MOST_COLUMNS else SIZES[:1]

    def tried(transform: str, many: np.ndarray, few: np.ndarray) -> tuple[frames.TableColumns, Tried, float]:
        columns = described["standard" if transform == "standard" else "power"]
        if transform == "scores":
            columns = frames.with_scores(columns, cells, many, few)
        rows = frames.encoded(columns, cells)
        found = fit_tree(seed, rows[many], rows[few], sizes, small, seconds=_SHARE * seconds / len(folds))
        return columns, found, found.value - float(np.mean(frames.log_volume(columns, rows[few])))

    # Powers and scores make columns symmetric or normal, but they bend linear relations between columns.
    results = [[tried(transform, *fold) for fold in folds] for transform in ("scores", "power", "standard")]
    (columns, found, _), *_ = max(results, key=lambda of_folds: np.mean([value for *_, value in of_folds]))
    many, few = folds[0]
    rows, mixture = frames.encoded(columns, cells), None
    parts = rows[many], rows[few], sizes
    if method == "tree" and num_clusters is not None:
        found = fit_tree(seed, *parts, (num_clusters,), seconds=math.inf)
    elif method != "mixture" and found.tree.num_clusters == small[-1]:
        left = started + seconds - time.process_time()
        found = fit_tree(seed, *parts, SIZES[len(small) :], seconds=left, start=found)
    if method != "tree":
        prior = None
        if num_clusters is not None:
            size = max(1, len(frames.numbers_of(columns)))
            prior = ClusteredPrior(num_latents=size, num_clusters=num_clusters, map=kind, proportions="learned")
        mixture = fit_mixture(seed, *parts, prior, seconds=started + seconds - time.process_time())
        if method == "mixture" or np.mean(mixture.log_prob(seed, rows[few])) >= found.value:
            return Choice(columns, mixture, mixture, many, few)
    return Choice(columns, found.tree, mixture, many, few)


def _folds(seed: int, num: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of the rows to fit and of the held-out ones: one split, or several of a small table."""
    order, num_held_out = np.random.default_rng(seed).permutation(num), min(max(1, int(_HELD_OUT * num)), num - 1)
    for fold in range(1 if num_held_out >= _FEW_HELD_OUT or num_held_out * _NUM_FOLDS > num else _NUM_FOLDS):
        few, many = np.split(np.roll(order, -fold * num_held_out), [num_held_out])
        yield many, few
