"""Tables and fields: marginals beside those of the data, fields with a colour bar."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kaem_jax.evaluation.figures.canvas import save

__all__ = ["plot_fields", "plot_marginals"]

_NUM_COLUMNS = 6
_MAX_SHOWN = 36


def plot_marginals(path: pathlib.Path, names: Sequence[str], generated: np.ndarray, held_out: np.ndarray) -> None:
    """One histogram for each column, of held-out data and of samples.

    Args:
      path: PNG file to write.
      names: D texts.
      generated, held_out: [N, D], NaN where a value is missing.
    """
    count = min(len(names), _MAX_SHOWN)
    rows = -(-count // _NUM_COLUMNS)
    figure = Figure(figsize=(2.4 * _NUM_COLUMNS, 1.9 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, _NUM_COLUMNS, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    held_out_style: dict[str, Any] = {"color": "0.75", "label": "held out"}
    generated_style: dict[str, Any] = {"color": "tab:blue", "label": "generated", "histtype": "step"}
    for axes, name, ours, real in zip(grid[:count], names, generated.T, held_out.T, strict=False):
        ours, real = ours[np.isfinite(ours)], real[np.isfinite(real)]
        both = np.concatenate([ours, real])
        low, high = (float(np.quantile(both, q)) for q in (0.005, 0.995)) if len(both) else (0.0, 1.0)
        edges = np.linspace(low, high, 31) if low < high else low + np.linspace(-0.5, 0.5, 31)
        for values, style in ((real, held_out_style), (ours, generated_style)):
            if len(values):  # a column may be empty in the held-out part
                axes.hist(values, edges, density=True, **style)
        shown = name if len(name) < 28 else f"{name[:25]}..."
        axes.set_title(shown, fontsize=8, parse_math=False)  # "$" may be money
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    grid[0].legend(fontsize=7)
    save(figure, path)


def plot_fields(
    path: pathlib.Path,
    generated: np.ndarray,
    held_out: np.ndarray,
    spectrum: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    names: Sequence[str] = (),
) -> None:
    """Generated and held-out fields, their pointwise means and standard deviations, and their radial spectra.

    Args:
      path: PNG file to write.
      generated, held_out: [N, H, W, C], in the units of the data; the first four of each are shown.
      spectrum: wave numbers and power of fields [N, H, W].
      names: of the C channels, where there is more than one.
    """
    count = held_out.shape[-1]
    figure = Figure(figsize=(15, 5 * count), layout="constrained")
    grid = figure.subplots(2 * count, 7)
    for channel in range(count):
        of = f", {names[channel]}" if names else ""
        ours, real = generated[..., channel], held_out[..., channel]
        _draw_channel(figure, grid[2 * channel : 2 * channel + 2], ours, real, spectrum, of)
    save(figure, path)


def _draw_channel(
    figure: Figure,
    grid: np.ndarray,
    generated: np.ndarray,
    held_out: np.ndarray,
    spectrum: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    of: str,
) -> None:
    """Two rows of axes for fields [N, H, W]; titles end with `of`."""
    size = float(np.quantile(np.abs(held_out), 0.995))
    spread = float(np.quantile(held_out.std(axis=0), 0.995)) or 1.0
    for row, (name, fields) in enumerate((("held out", held_out), ("generated", generated))):
        shown = None
        for axes, field in zip(grid[row, :4], fields[:4], strict=False):
            shown = axes.imshow(field, cmap="RdBu_r", vmin=-size, vmax=size)
            axes.set_title(f"{name}{of}", fontsize=9)
        mean = grid[row, 4].imshow(fields.mean(axis=0), cmap="RdBu_r", vmin=-size, vmax=size)
        grid[row, 4].set_title(f"mean, {name}{of}", fontsize=9)
        deviation = grid[row, 5].imshow(fields.std(axis=0), cmap="viridis", vmin=0, vmax=spread)
        grid[row, 5].set_title(f"deviation, {name}{of}", fontsize=9)
        if shown is not None:
            figure.colorbar(mean, ax=grid[row, 4])
            figure.colorbar(deviation, ax=grid[row, 5])
        for axes in grid[row, :6]:
            axes.set_axis_off()
    for name, fields, colour in (("held out", held_out, "0.4"), ("generated", generated, "tab:blue")):
        grid[0, 6].loglog(*spectrum(fields), color=colour, label=name)
    grid[0, 6].set_title(f"power by wave number{of}", fontsize=9)
    # On less than a decade labels of all minor ticks would overlap.
    numbers = [2**k for k in range(int(np.log2(max(2, min(held_out.shape[1:]) // 2))) + 1)]
    grid[0, 6].set_xticks(numbers, [str(number) for number in numbers])
    grid[0, 6].set_xticks([], minor=True)
    grid[0, 6].legend(fontsize=7)
    grid[1, 6].set_visible(False)
