"""A figure of the columns of a table: what was learned of each, beside its training rows."""

from typing import Any

import numpy as np

from kaem_jax.tables.column import Column
from kaem_jax.tables.density import Density, Rows
from kaem_jax.tables.frames import TableColumns

_NUM_POINTS, _NUM_LINES = 200, 10  # of a curve, and of estimates of each point
_NUM_CLUSTERS_SHOWN, _MOST_ACROSS = 5, 4
_RANGE = 0.001  # quantiles that a curve joins


def plot_columns(seed: int, columns: TableColumns, density: Density, rows: Rows) -> Any:
    """See `TableDensity.plot_columns`; `rows` are training rows without gaps."""
    from matplotlib.figure import Figure

    overall = density.responsibilities(seed, rows).mean(axis=0)
    heaviest = np.argsort(-overall)[:_NUM_CLUSTERS_SHOWN] if len(overall) > 1 else ()
    across = min(_MOST_ACROSS, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(3 * across, 2.2 * down), layout="constrained")
    numbers, codes = iter(range(rows.z.shape[1])), iter(range(rows.codes.shape[1]))
    for i, column in enumerate(columns):
        axes = figure.add_subplot(down, across, i + 1)
        axes.set_title(column.name, fontsize="small")
        axes.set_yticks([])
        if column.categories:
            _plot_shares(axes, seed, column, density, rows, next(codes))
        else:
            _plot_density(axes, seed, column, density, rows, next(numbers), heaviest)
    figure.axes[0].legend(fontsize="x-small")
    return figure


def _plot_density(axes: Any, seed: int, column: Column, density: Density, rows: Rows, i: int, clusters: Any) -> None:
    seen = column.in_units(rows.z[:, i])
    low, high = np.quantile(seen, [_RANGE, 1 - _RANGE])
    grid = np.linspace(low, high, _NUM_POINTS)
    points = _nothing_known(rows, _NUM_POINTS)
    points.z[:, i] = column.encode(grid.tolist())[:, 0]
    draws = [seed + k for k in range(_NUM_LINES)]
    p = np.mean([np.exp(density.log_prob(draw, points)) for draw in draws], axis=0)
    p *= np.exp(-column.log_volume(points.z[:, i : i + 1]))
    axes.hist(seen, bins=40, range=(low, high), density=True, alpha=0.4, label="training rows")
    axes.plot(grid, p, label="model")
    if len(clusters):
        share = np.mean([density.responsibilities(draw, points) for draw in draws], axis=0)
        for k, c in enumerate(clusters):
            axes.plot(grid, p * share[:, c], color="gray", linewidth=0.7, label=None if k else "one cluster")
    scores = axes.twinx()
    scores.plot(grid, points.z[:, i], color="black", linewidth=0.6, linestyle="dashed")
    scores.tick_params(labelsize="xx-small")


def _plot_shares(axes: Any, seed: int, column: Column, density: Density, rows: Rows, i: int) -> None:
    points = _nothing_known(rows, column.size)
    points.codes[:, i] = np.arange(column.size)
    p = np.exp(density.log_prob(seed, points) - density.log_prob(seed, _nothing_known(rows, 1)))
    axes.bar(column.categories, np.bincount(rows.codes[:, i], minlength=column.size) / len(rows), alpha=0.4)
    axes.plot(column.categories, p, "o")


def _nothing_known(rows: Rows, num: int) -> Rows:
    return Rows(np.full((num, rows.z.shape[1]), np.nan, np.float32), np.full((num, rows.codes.shape[1]), -1))
