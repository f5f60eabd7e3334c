"""Pictures of a run: functions that take arrays and write PNG files."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from kaem_jax.app.log import describe_effort, effort_of, standard_error_of
from kaem_jax.files.fonts import all_scripts
from kaem_jax.files.writing import replacing
from kaem_jax.jax_utils.processes import is_writer

_MAX_DENSITIES, _MAX_MARGINALS = 12, 36


def _save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a PNG file, from one process; a reader of the folder never sees an incomplete file."""
    if is_writer():
        with replacing(path) as temporary, all_scripts():
            figure.savefig(temporary, dpi=130, format="png")


def plot_curves(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Loss, ESS or log p(x | z) of posterior draws, and held-out log-likelihood over the rows of a metrics file."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, sampler, held_out = figure.subplots(1, 3)
    _curve(loss, rows, "train/loss", "training loss\n(nats per datum)")
    if any("train/ess" in row for row in rows):
        _curve(sampler, rows, "train/ess", "training ESS\n(mean over the batch)")
        sampler.set_yscale("log")
        sampler.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        sampler.yaxis.set_major_formatter(ScalarFormatter())
        sampler.yaxis.set_minor_formatter(NullFormatter())
    else:
        _curve(sampler, rows, "train/log_likelihood", "log p(x | z)\n(at posterior draws, nats per datum)")
    by_effort: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("eval/log_likelihood") is not None:
            by_effort.setdefault(effort_of(row), []).append(row)
    for i, chosen in enumerate(by_effort.values()):
        steps, nats = ([row[name] for row in chosen] for name in ("step", "eval/log_likelihood"))
        held_out.plot(steps, nats, color=f"C{i + 1}", alpha=0.4, linewidth=1)
        for bound, marker in ((True, "^"), (False, "o")):
            kind = [row for row in chosen if bool(row["eval/is_bound"]) is bound]
            if kind:
                held_out.errorbar(
                    [row["step"] for row in kind], [row["eval/log_likelihood"] for row in kind],
                    yerr=None if bound else [2 * standard_error_of(row) for row in kind], linestyle="", marker=marker,
                    markersize=4, capsize=4, color=f"C{i + 1}", markerfacecolor="white" if bound else None,
                    label=f"{describe_effort(chosen[0])}: {'lower bound' if bound else 'estimate +- 2 errors'}",
                )  # fmt: skip
    if by_effort:
        held_out.legend(fontsize=7, frameon=False)
    held_out.set_title("held-out log-likelihood\n(nats per datum)", fontsize=9)
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


def plot_densities(
    path: pathlib.Path, z: np.ndarray, density: np.ndarray, base: np.ndarray, names: list[str], explained: np.ndarray
) -> None:
    """Learned univariate densities with their base, the first 12 of them; the arguments are fields of `Learned`."""
    count = min(len(names), _MAX_DENSITIES)
    columns = min(4, count)
    figure = Figure(figsize=(3.2 * columns, 2.5 * -(-count // columns) + 0.4), layout="constrained")
    for i, axes in enumerate(_panels(figure, count, columns)):
        axes.plot(z[:, i], base[:, i], color="0.6", linestyle="--", label="base")
        axes.plot(z[:, i], density[:, i], color="C0", label="learned")
        axes.fill_between(z[:, i], density[:, i], color="C0", alpha=0.2)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{names[i]}: moves {explained[i]:.0%} of the output's variance", fontsize=8)
        if i == 0:
            axes.legend(fontsize=7, frameon=False)
    figure.suptitle(f"learned latent densities ({count} of {len(names)}, most informative first)", fontsize=10)
    _save(figure, path)


def _panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    rows = -(-count // columns)
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def plot_pairs(path: pathlib.Path, columns: int = 10, **groups: Any) -> None:
    """Grids of images [N, H, W] or [N, H, W, C] in [0, 1] side by side, each under its name; C is 1 or 3."""
    figure = Figure(figsize=(5 * len(groups), 5.2), layout="constrained")
    for axes, (name, images) in zip(_panels(figure, len(groups), len(groups)), groups.items(), strict=True):
        _show(axes, _tile(np.asarray(images), columns))
        axes.set_axis_off()
        axes.set_anchor("S")  # the title would be cut
        axes.set_title(name.replace("_", " "))
    _save(figure, path)


def plot_rows(
    path: pathlib.Path, images: np.ndarray, labels: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Rows of images [R, K, H, W] or [R, K, H, W, C] in [0, 1], with R labels on their left, under K labels."""
    images = np.asarray(images)
    rows, count, height, width = images.shape[:4]
    figure = Figure(figsize=(1.6 + 0.72 * count, 0.9 + 0.72 * rows), layout="constrained")
    axes = figure.subplots()
    _show(axes, _tile(images.reshape(rows * count, *images.shape[2:]), count))
    axes.set_frame_on(False)
    axes.set_yticks(np.arange(rows) * (height + 1) + height / 2, labels, fontsize=7)
    axes.set_xticks(np.arange(count) * (width + 1) + width / 2, columns, fontsize=7)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """[N, H, W(, C)] to one picture with a thin border between the images; unused places are grey."""
    images = images.reshape(*images.shape[:3], -1)
    rows = -(-len(images) // columns)
    filled = np.pad(images, ((0, rows * columns - len(images)), (1, 0), (1, 0), (0, 0)), constant_values=0.5)
    height, width, channels = filled.shape[1:]
    tiled = filled.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = np.clip(tiled.reshape(rows * height, columns * width, channels), 0, 1)
    return picture[..., 0] if channels == 1 else picture


def plot_marginals(path: pathlib.Path, names: Sequence[str], generated: np.ndarray, held_out: np.ndarray) -> None:
    """One histogram for each of D columns, of held-out data and of samples [N, D], NaN where a value is missing."""
    count = min(len(names), _MAX_MARGINALS)
    columns = 6
    figure = Figure(figsize=(2.4 * columns, 1.9 * -(-count // columns) + 0.6), layout="constrained")
    for i, axes in enumerate(_panels(figure, count, columns)):
        ours, real = (values[np.isfinite(values[:, i]), i] for values in (generated, held_out))
        both = np.concatenate([ours, real])
        low, high = map(float, np.quantile(both, (0.005, 0.995)) if len(both) else (0, 1))
        edges: Any = np.linspace(low, high, 31) if low < high else low + np.linspace(-0.5, 0.5, 31)
        if len(real):  # a column may be empty in the held-out part
            axes.hist(real, edges, density=True, color="0.75", label="held out")
        if len(ours):
            axes.hist(ours, edges, density=True, color="tab:blue", label="generated", histtype="step")
        shown = names[i] if len(names[i]) < 28 else f"{names[i][:25]}..."
        axes.set_title(shown, fontsize=8, parse_math=False)  # "$" may be money
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        if i == 0:
            axes.legend(fontsize=7)
    _save(figure, path)


def plot_fields(path: pathlib.Path, generated: np.ndarray, held_out: np.ndarray, names: Sequence[str] = ()) -> None:
    """Four of the fields [N, H, W, C], pointwise means and deviations, and spectra; `names` are those of channels."""
    count = held_out.shape[-1]
    figure = Figure(figsize=(15, 5 * count), layout="constrained")
    grid = figure.subplots(2 * count, 7)
    for channel in range(count):
        of = f", {names[channel]}" if names else ""
        real = held_out[..., channel]
        size, spread = np.quantile(np.abs(real), 0.995), np.quantile(real.std(axis=0), 0.995) or 1.0
        power = grid[2 * channel, 6]
        for row, name, values in ((2 * channel, "held out", held_out), (2 * channel + 1, "generated", generated)):
            fields = values[..., channel]
            for axes, field in zip(grid[row], fields[:4], strict=False):
                axes.imshow(field, cmap="RdBu_r", vmin=-size, vmax=size)
                axes.set_title(f"{name}{of}", fontsize=9)
            mean, deviation = grid[row, 4:6]
            figure.colorbar(mean.imshow(fields.mean(axis=0), cmap="RdBu_r", vmin=-size, vmax=size), ax=mean)
            mean.set_title(f"mean, {name}{of}", fontsize=9)
            figure.colorbar(deviation.imshow(fields.std(axis=0), cmap="viridis", vmin=0, vmax=spread), ax=deviation)
            deviation.set_title(f"deviation, {name}{of}", fontsize=9)
            for axes in grid[row]:
                axes.set_axis_off()
            power.loglog(*radial_spectrum(fields), label=name)
        power.set_axis_on()
        power.set_title(f"power by wave number{of}", fontsize=9)
        power.legend(fontsize=7)
    _save(figure, path)


def radial_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of the Fourier transform of fields [N, H, W] on rings of whole wave numbers.

    Returns wave numbers 1, 2, ... up to half the shorter side, and the power at each. By Parseval's theorem the total
    power is the mean square of a field.
    """
    height, width = fields.shape[1:]
    power = np.mean(np.abs(np.fft.fft2(fields)) ** 2, axis=0) / (height * width) ** 2
    along = [np.fft.fftfreq(size, 1 / size) for size in (height, width)]
    ring = np.round(np.hypot(*np.meshgrid(*along, indexing="ij"))).astype(int)
    wave_numbers = np.arange(1, min(height, width) // 2 + 1)
    return wave_numbers, np.array([power[ring == k].mean() for k in wave_numbers])
