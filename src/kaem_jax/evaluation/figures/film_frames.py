"""A film of training: the same draws, and the densities, one frame for each checkpoint."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from kaem_jax.evaluation.figures.densities import draw_density
from kaem_jax.evaluation.figures.grids import tile
from kaem_jax.files import replacing

__all__ = ["write_film"]

_COLUMNS, _MAX_PANELS = 6, 9
_HEIGHT, _DPI = 480, 100  # pixels, about: images are enlarged by a whole number
_LENGTH, _LAST = 6000, 2000  # milliseconds of all frames, and how long the last one stays
_SHORTEST, _LONGEST = 60, 1000


def write_film(
    path: pathlib.Path,
    steps: Sequence[int],
    samples: np.ndarray | None,
    z: np.ndarray,
    density: np.ndarray,
    base: np.ndarray,
    names: Sequence[str],
) -> None:
    """Writes a GIF file with one frame for each of K checkpoints. Axes stay where they are from frame to frame.

    Args:
      path: GIF file to write.
      steps: K numbers of updates.
      samples: [K, N, H, W] or [K, N, H, W, C] in [0, 1], drawn six in a row; C is 1 or 3. None shows densities alone.
      z, density, base: [K, M, L] points, and the two densities there; the first nine latents are shown.
      names: L labels.
    """
    frames = []
    for k, step in enumerate(steps):
        left = None if samples is None else _enlarged(tile(np.asarray(samples[k]), _COLUMNS))
        height = _HEIGHT if left is None else len(left)
        right = _densities(f"step {step:,}", height, k, z, density, base, names)
        frames.append(right if left is None else np.concatenate([left, right], axis=1))
    first, *others = (Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames)
    duration = int(np.clip(_LENGTH / len(frames), _SHORTEST, _LONGEST))
    durations = [duration] * len(others) + [_LAST]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """uint8 [H', W', 3] of a picture [H, W] or [H, W, 3] in [0, 1]; each of its pixels is a square of pixels."""
    zoom = max(1, round(_HEIGHT / len(picture)))
    pixels = np.round(255 * picture).astype(np.uint8)
    coloured = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    return coloured.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _densities(
    title: str,
    height: int,
    frame: int,
    z: np.ndarray,
    density: np.ndarray,
    base: np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """uint8 [height, W, 3] of one frame's densities; the axes hold those of all frames."""
    count = min(len(names), _MAX_PANELS)
    columns = min(3, count)
    # A little more: older canvases round down, and 510 / 100 * 100 is a hair below 510.
    figure = Figure(figsize=((80 + 200 * columns) / _DPI, (height + 0.2) / _DPI), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for i, axes in enumerate(grid[:count]):
        draw_density(axes, z[frame, :, i], density[frame, :, i], base[frame, :, i])
        axes.set_xlim(z[..., i].min(), z[..., i].max())
        axes.set_ylim(0, 1.05 * max(density[..., i].max(), base[..., i].max()))
        axes.set_title(names[i], fontsize=8)
    for axes in grid[count:]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
