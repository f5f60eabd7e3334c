"""What the latents learned: their densities, ranked by their effect on the output."""

import pathlib

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kaem_jax.evaluation.figures.canvas import save

__all__ = ["draw_density", "plot_densities", "plot_density", "plot_overview"]

_MAX_PANELS = 12


def plot_densities(
    path: pathlib.Path,
    z: np.ndarray,
    density: np.ndarray,
    base: np.ndarray,
    names: list[str],
    explained: np.ndarray,
) -> None:
    """Learned univariate densities with their base, the first 12 of them.

    Args:
      path: PNG file to write.
      z: [N, L] points.
      density, base: [N, L] the two densities there.
      names: L labels.
      explained: [L] share of the output's variance that moves with each latent, in 0..1, in falling order.
    """
    count = min(len(names), _MAX_PANELS)
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, axes in enumerate(grid[:count]):
        draw_density(axes, z[:, i], density[:, i], base[:, i])
        axes.set_title(f"{names[i]}: moves {explained[i]:.0%} of the output's variance", fontsize=8)
        axes.set_xlabel("z", fontsize=8)
    for axes in grid[count:]:
        axes.set_axis_off()
    grid[0].set_ylabel("density", fontsize=8)
    grid[0].legend(fontsize=7, frameon=False)
    figure.suptitle(f"learned latent densities ({count} of {len(names)}, most informative first)", fontsize=10)
    save(figure, path)


def plot_density(path: pathlib.Path, z: np.ndarray, density: np.ndarray, base: np.ndarray, modes: list) -> None:
    """A small picture of one density [N] with its base and modes (their locations), for a row of a table."""
    figure = Figure(figsize=(2.6, 1.2), layout="constrained")
    axes = figure.subplots()
    draw_density(axes, z, density, base)
    axes.plot(modes, np.interp(modes, z, density), "o", color="C3", markersize=3)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    save(figure, path, dpi=100)


def plot_overview(
    path: pathlib.Path, z: np.ndarray, density: np.ndarray, base: np.ndarray, explained: np.ndarray
) -> None:
    """All latents in one picture: what each explains, and where its density lies above or below the base.

    Args:
      path: PNG file to write.
      z, density, base: [N, L].
      explained: [L], in falling order.
    """
    count = len(explained)
    figure = Figure(figsize=(min(14, 4 + 0.11 * count), 5.5), layout="constrained")
    bars, heat = figure.subplots(2, 1, height_ratios=(1, 1.6), sharex=True)
    bars.bar(np.arange(1, count + 1), 100 * explained, color="C0", width=0.9)
    bars.set_ylabel("% of the output's\nvariance moved", fontsize=8)
    bars.set_title(f"all {count} latents, most informative first", fontsize=9)
    low, high = z.min(), z.max()
    levels = np.linspace(low, high, 200)
    outside = float("nan")  # where a curve ends the base may go on, so that 0 would say too much
    curves = [np.interp(levels, z[:, i], (density - base)[:, i], outside, outside) for i in range(count)]
    excess = np.ma.masked_invalid(np.stack(curves, axis=1))
    limit = np.abs(excess).max() or 1.0
    extent = (0.5, count + 0.5, low, high)
    mesh = heat.imshow(
        excess,
        cmap=colormaps["RdBu_r"].with_extremes(bad="0.85"),
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        extent=extent,
    )
    heat.set_ylabel("z", fontsize=8)
    heat.set_xlabel("rank", fontsize=8)
    colorbar = figure.colorbar(mesh, ax=heat, shrink=0.9)
    colorbar.set_label("density - base\n(grey: hardly any mass)", fontsize=8)
    colorbar.ax.tick_params(labelsize=7)
    for axes in (bars, heat):
        axes.tick_params(labelsize=7)
    save(figure, path)


def draw_density(axes: Axes, z: np.ndarray, density: np.ndarray, base: np.ndarray) -> None:
    """One density and its base."""
    axes.plot(z, base, color="0.6", linestyle="--", label="base")
    axes.plot(z, density, color="C0", label="learned")
    axes.fill_between(z, density, color="C0", alpha=0.2)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
