"""Grids and rows of images."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kaem_jax.evaluation.figures.canvas import save

__all__ = ["plot_pairs", "plot_rows", "plot_strip", "show_picture", "tile"]


def plot_pairs(path: pathlib.Path, columns: int = 10, **groups: Any) -> None:
    """Grids of images side by side, each under its name.

    Args:
      path: PNG file to write.
      columns: images in a row of each grid.
      groups: name = [N, H, W] or [N, H, W, C] with values in [0, 1]; C is 1 or 3. Names are shown with spaces.
    """
    figure = Figure(figsize=(5 * len(groups), 5.2), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        show_picture(axes, tile(np.asarray(images), columns))
        axes.set_title(name.replace("_", " "))
    save(figure, path)


def plot_rows(
    path: pathlib.Path, images: np.ndarray, labels: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Rows of images, each with a label on its left, under labelled columns.

    Args:
      path: PNG file to write.
      images: [R, K, H, W] or [R, K, H, W, C] in [0, 1].
      labels: R texts.
      columns: K texts.
      title: text above the grid.
    """
    images = np.asarray(images)
    rows, count = images.shape[:2]
    height, width = images.shape[2:4]
    grid = tile(images.reshape(rows * count, *images.shape[2:]), count)
    figure = Figure(figsize=(1.6 + 0.72 * count, 0.9 + 0.72 * rows), layout="constrained")
    axes = figure.subplots()
    show_picture(axes, grid)
    axes.set_axis_on()
    axes.set_frame_on(False)
    axes.set_yticks(np.arange(rows) * (height + 1) + height / 2, labels, fontsize=7)
    axes.set_xticks(np.arange(count) * (width + 1) + width / 2, columns, fontsize=7)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_title(title, fontsize=9)
    save(figure, path)


def plot_strip(path: pathlib.Path, images: np.ndarray) -> None:
    """One row of images [K, H, W] or [K, H, W, C] without text; each image pixel has one screen pixel or more."""
    images = np.asarray(images)
    grid = tile(images, len(images))
    zoom = max(1, round(56 / images.shape[1]))
    pixels = np.repeat(np.repeat(grid, zoom, axis=0), zoom, axis=1)
    figure = Figure(figsize=(pixels.shape[1] / 100, pixels.shape[0] / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    show_picture(axes, pixels)
    save(figure, path, dpi=100)


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    """One picture without axes."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_axis_off()


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """[N, H, W(, C)] to one picture with a thin border between the images; unused places in the last row are grey."""
    if images.ndim == 3:
        images = images[..., None]
    rows = -(-len(images) // columns)
    filled = np.pad(images, ((0, rows * columns - len(images)), (0, 0), (0, 0), (0, 0)), constant_values=0.5)
    padded = np.pad(filled, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=0.5)
    height, width, channels = padded.shape[1:]
    tiled = padded.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = np.clip(tiled.reshape(rows * height, columns * width, channels), 0, 1)
    return picture[..., 0] if channels == 1 else picture
