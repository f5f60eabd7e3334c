"""Pictures of a run: samples beside data, learned densities, training curves. Arrays in, PNG files out."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

__all__ = ["plot_curves", "plot_densities", "plot_pairs"]

_MAX_PANELS = 12


def plot_pairs(path: pathlib.Path, columns: int = 10, **groups: Any) -> None:
    """Grids of images side by side, each under its name.

    Args:
      path: PNG file to write.
      columns: images in a row of each grid.
      groups: name = [N, H, W] or [N, H, W, C] with values in [0, 1]; C is 1 or 3. Names are shown with spaces.
    """
    figure = Figure(figsize=(5 * len(groups), 5.2), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        axes.imshow(_grid(np.asarray(images), columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name.replace("_", " "))
        axes.set_axis_off()
    _save(figure, path)


def plot_densities(
    path: pathlib.Path,
    z: np.ndarray,
    density: np.ndarray,
    reference: np.ndarray,
    names: list[str],
    explained: np.ndarray,
) -> None:
    """Learned univariate densities with their reference, the most informative first.

    Args:
      path: PNG file to write.
      z: [N, L] points. density, reference: [N, L] their densities.
      names: L labels.
      explained: [L] share of the output's variance that moves with each latent, in 0..1; ranks the panels, of which at
        most 12 are drawn.
    """
    ranked = np.argsort(-explained)[:_MAX_PANELS]
    columns = min(4, len(ranked))
    rows = -(-len(ranked) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, latent in zip(grid, ranked, strict=False):
        axes.plot(z[:, latent], reference[:, latent], color="0.6", linestyle="--", label="reference")
        axes.plot(z[:, latent], density[:, latent], color="C0", label="learned")
        axes.fill_between(z[:, latent], density[:, latent], color="C0", alpha=0.2)
        axes.set_title(f"{names[latent]}: moves {explained[latent]:.0%} of the output's variance", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("z", fontsize=8)
    for axes in grid[len(ranked) :]:
        axes.set_axis_off()
    grid[0].set_ylabel("density", fontsize=8)
    grid[0].legend(fontsize=7, frameon=False)
    figure.suptitle(f"learned latent densities ({len(ranked)} of {len(names)}, most informative first)", fontsize=10)
    _save(figure, path)


def plot_curves(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Loss, ESS and held-out log-likelihood over the steps of a metrics file."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, sampler, held_out = figure.subplots(1, 3)
    if any("train/ess" in row for row in rows):
        _curve(loss, rows, "train/loss", "training loss\n(-log-evidence, nats per datum)")
        _curve(sampler, rows, "train/ess", "training ESS\n(mean over the batch)")
        sampler.set_yscale("log")
        sampler.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        sampler.yaxis.set_major_formatter(ScalarFormatter())
        sampler.yaxis.set_minor_formatter(NullFormatter())
    else:
        _curve(loss, rows, "train/loss", "training loss\n(-log p(x, z) at posterior draws, nats)")
        _curve(sampler, rows, "train/log_likelihood", "log p(x | z)\n(at posterior draws, nats per datum)")
    evaluated = [row for row in rows if row.get("eval/log_likelihood") is not None]
    efforts = ("eval/num_samples", "proposals"), ("eval/num_temperatures", "temperatures")
    counts = sorted({(name, row[name], unit) for row in evaluated for name, unit in efforts if name in row})
    for (name, count, unit), color in zip(counts, ("C1", "C3"), strict=False):
        chosen = [row for row in evaluated if row.get(name) == count]
        held_out.errorbar(
            [row["step"] for row in chosen],
            [row["eval/log_likelihood"] for row in chosen],
            yerr=[2 * row["eval/log_likelihood_standard_error"] for row in chosen],
            marker="o", markersize=3, color=color, label=f"{count:,} {unit}",
        )  # fmt: skip
    if evaluated:
        held_out.legend(fontsize=7, frameon=False)
    held_out.set_title("held-out log-likelihood\n(nats per datum, +- 2 standard errors)", fontsize=9)
    for axes in (loss, sampler, held_out):
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    _save(figure, path)


def _curve(axes: Axes, rows: list[dict[str, Any]], name: str, title: str) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        steps, values = np.array(points).T
        axes.plot(steps, values, color="C0", alpha=0.35, linewidth=1)
        width = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color="C0")
    axes.set_title(title, fontsize=9)


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """[N, H, W(, C)] to one picture with a thin border between the images."""
    if images.ndim == 3:
        images = images[..., None]
    rows = len(images) // columns
    padded = np.pad(images[: rows * columns], ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=0.5)
    height, width, channels = padded.shape[1:]
    tiled = padded.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = np.clip(tiled.reshape(rows * height, columns * width, channels), 0, 1)
    return picture[..., 0] if channels == 1 else picture


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=130, format="png")
    temporary.replace(path)
