"""A figure of the columns of a table: what was learned of each, beside its training rows."""

from typing import Any

import numpy as np

from kaem_jax.tables.column import Column
from kaem_jax.tables.density import Density, Rows
from kaem_jax.tables.frames import TableColumns

_NUM_POINTS, _NUM_LINES = 200, 10  # of a curve, and of estimates of each point
_NUM_CLUSTERS_SHOWN, _MOST_ACROSS = 5, 4
_MAP: dict[str, Any] = {"color": "black", "linewidth": 0.6, "linestyle": "dashed"}
_MOST_BINS = 40
_RANGE = 0.001  # quantiles that a curve joins


def plot_columns(seed: int, columns: TableColumns, density: Density, rows: Rows) -> Any:
    """See `TableDensity.plot_columns`; `rows` are training rows without gaps."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    overall = density.responsibilities(seed, rows).mean(axis=0)
    heaviest = np.argsort(-overall)[:_NUM_CLUSTERS_SHOWN] if len(overall) > 1 else ()
    across = min(_MOST_ACROSS, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(3 * across, 2.2 * down), layout="constrained")
    numbers, codes = iter(range(rows.z.shape[1])), iter(range(rows.codes.shape[1]))
    panels = []
    for i, column in enumerate(columns):
        axes = figure.add_subplot(down, across, i + 1)
        panels.append(axes)
        axes.set_title(column.name, fontsize="small")
        axes.set_yticks([])
        if column.categories:
            _plot_shares(axes, seed, column, density, rows, next(codes))
        else:
            _plot_density(axes, seed, column, density, rows, next(numbers), heaviest)
    of_number = next((i for i, column in enumerate(columns) if not column.categories), None)
    shown = panels[of_number or 0]
    handles = shown.get_legend_handles_labels()[0]
    if of_number is not None:
        handles.append(Line2D([], [], label="learned map (right)", **_MAP))
    shown.legend(handles=handles, fontsize="x-small")
    return figure


def _plot_density(axes: Any, seed: int, column: Column, density: Density, rows: Rows, i: int, clusters: Any) -> None:
    seen = column.in_units(rows.z[:, i])
    bins = _bins(seen)
    low, high = bins[0], bins[-1]
    grid = np.linspace(low, high, _NUM_POINTS)
    points = _nothing_known(rows, _NUM_POINTS)
    points.z[:, i] = column.encode(grid.tolist())[:, 0]
    draws = [seed + k for k in range(_NUM_LINES)]
    p = np.mean([np.exp(density.log_prob(draw, points)) for draw in draws], axis=0)
    p *= np.exp(-column.log_volume(points.z[:, i : i + 1]))
    axes.hist(seen, bins=bins, density=True, alpha=0.4, label="training rows")
    axes.plot(grid, p, label="model")
    if len(clusters):
        share = np.mean([density.responsibilities(draw, points) for draw in draws], axis=0)
        for k, c in enumerate(clusters):
            axes.plot(grid, p * share[:, c], color="gray", linewidth=0.7, label=None if k else "one cluster")
    scores = axes.twinx()
    scores.plot(grid, points.z[:, i], **_MAP)
    scores.tick_params(labelsize="xx-small")


def _bins(seen: np.ndarray) -> np.ndarray:
    """Forty bins, or one around each of fewer values, whose density in the model is that of the cell around it."""
    values = np.unique(seen.astype(np.float32))
    if len(values) > _MOST_BINS:
        low, high = np.quantile(seen, [_RANGE, 1 - _RANGE])
        return np.linspace(low, high, _MOST_BINS + 1)
    half = np.median(np.diff(values)) / 2 if len(values) > 1 else 0.5
    return np.concatenate([values[:1] - half, (values[1:] + values[:-1]) / 2, values[-1:] + half])


def _plot_shares(axes: Any, seed: int, column: Column, density: Density, rows: Rows, i: int) -> None:
    points = _nothing_known(rows, column.size)
    points.codes[:, i] = np.arange(column.size)
    p = np.exp(density.log_prob(seed, points) - density.log_prob(seed, _nothing_known(rows, 1)))
    shares = np.bincount(rows.codes[:, i], minlength=column.size) / len(rows)
    axes.bar(column.categories, shares, alpha=0.4, label="training rows")
    axes.plot(column.categories, p, "o", label="model")


def _nothing_known(rows: Rows, num: int) -> Rows:
    return Rows(np.full((num, rows.z.shape[1]), np.nan, np.float32), np.full((num, rows.codes.shape[1]), -1))
