"""Users' own images in a folder."""

import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from kaem_jax.app.data.config import DataSettings, parts_of
from kaem_jax.app.data.forms import PIXELS
from kaem_jax.errors import first_line
from kaem_jax.jax_utils.processes import say

Fit = Literal["crop", "pad", "portrait"]

# Pillow may start a program for other formats, whatever the file's ending: Ghostscript for EPS.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_OPAQUE = 128  # pixels with less are missing
_PORTRAIT, _CENTRE = (178, 218), 140  # of CelebA, and its usual crop


def open_folder(settings: DataSettings) -> Any:
    """Opens images in folders `train` and `test`, or in one folder, which is split; `arrays` describes the result.

    Files are read in the order of their names, from sub-folders too. If every image is in a sub-folder, and there are
    several, the sub-folders of the training images are the classes.
    """
    folder = pathlib.Path(settings.path).expanduser()
    named = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    is_split = {"train", "test"} <= named.keys()
    other = next((name for name in ("val", "valid", "validation", "dev") if name in named), None)
    if "train" in named and other and not is_split:
        raise ValueError(f"it has folders train and {other}, and none called test: rename {other} to test")
    roots = [named["train"], named["test"]] if is_split else [folder]
    files = [_find(root) for root in roots]
    names = [_classes(root, found) for root, found in zip(roots, files, strict=True)]
    number = {name: i for i, name in enumerate(sorted(set(names[0])))}
    if unknown := sorted({name for name in names[-1] if name not in number}):
        say(f"data.path={settings.path!r}: no training image has the class {unknown[0]!r} of test images")
    labels = np.array([number.get(name, -1) for part in names for name in part], np.int32)
    every = [file for part in files for file in part]
    images = _read(every, settings.image_size, settings.fit, settings.channels, as_bytes=True)
    parts = parts_of([len(part) for part in files], settings)
    return parts, labels if len(number) > 1 else None, lambda _: (images, PIXELS)


def read_images(path: str, size: int = 0, fit: Fit = "crop", channels: str = "auto") -> np.ndarray:
    """Reads an image file, or all images of a folder by name: float32 [N, H, W, C] in [0, 1], NaN where transparent.

    `size`, `fit` and `channels` are as in `DataSettings`; `portrait` takes the `central_square` of an aligned portrait
    of CelebA.
    """
    found = pathlib.Path(path).expanduser()
    return _read(_find(found) if found.is_dir() else [found], size, fit, channels)


def _pixels(image: Image.Image, size: tuple[int, int] | None, fit: Fit, channels: str) -> np.ndarray:
    """An image scaled to `size` (width, height): float32 [H, W, C] in [0, 1], NaN where a pixel is transparent."""
    image = ImageOps.exif_transpose(image)  # as the camera was held
    if channels == "auto":
        channels = "grey" if image.mode in ("1", "L", "LA") or image.mode.startswith("I;16") else "rgb"
    if image.mode.startswith("I;16"):  # Pillow would clip them
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of kind {image.mode!r} have an unknown range; wanted: 8 or 16 bits")
    mode, has_alpha = "L" if channels == "grey" else "RGB", image.has_transparency_data
    image = image.convert("RGBA" if has_alpha else mode)
    if size and fit == "pad":
        image = ImageOps.pad(image, size, Image.Resampling.BILINEAR, "black")
    elif size:
        is_portrait = fit == "portrait" and image.size == _PORTRAIT
        image = ImageOps.fit(central_square(image) if is_portrait else image, size, Image.Resampling.BILINEAR)
    values = np.asarray(image.convert(mode), np.float32).reshape(image.height, image.width, -1) / 255
    if has_alpha:
        values[np.asarray(image.getchannel("A")) < _OPAQUE] = np.nan
    return values


def central_square(portrait: Image.Image) -> Image.Image:
    """The 140 x 140 pixels in the middle of a portrait of CelebA, the usual crop."""
    left, top = ((side - _CENTRE) // 2 for side in portrait.size)
    return portrait.crop((left, top, left + _CENTRE, top + _CENTRE))


def _find(folder: pathlib.Path) -> list[pathlib.Path]:
    """All images, also in linked folders, without hidden files and folders."""
    files = []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = pathlib.Path(place)
        above = here.resolve().parents  # to which a link may lead back
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in above]
        files += [here / name for name in names if name[0] != "." and (here / name).suffix.lower() in _SUFFIXES]
    if not files:
        raise ValueError(f"{folder} holds no images; allowed: {', '.join(sorted(_SUFFIXES))}")
    return sorted(files)


def _classes(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> list[str]:
    names = [file.relative_to(folder).parts for file in files]
    return [parts[0] if all(len(parts) > 1 for parts in names) else "" for parts in names]


def _read(files: Sequence[pathlib.Path], size: int, fit: Fit, channels: str, as_bytes: bool = False) -> np.ndarray:
    """Reads images [N, H, W, C] with one thread per core. With `as_bytes` they are uint8, transparent pixels black."""

    def read(file: pathlib.Path, channels: str) -> np.ndarray:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                if size and fit != "portrait":
                    image.draft("L" if channels == "grey" else "RGB", (size, size))  # faster for JPEG
                values = _pixels(image, (size, size) if size else None, fit, channels)
        except Exception as error:  # each of Pillow's plug-ins raises types of its own
            raise ValueError(f"{file} is not an image that can be read: {first_line(error)}") from None
        return np.round(255 * np.nan_to_num(values)).astype(np.uint8) if as_bytes else values

    first = read(files[0], channels)
    channels = "grey" if first.shape[-1] == 1 else "rgb"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = [first, *pool.map(lambda file: read(file, channels), files[1:])]
    for file, image in zip(files, images, strict=True):
        if image.shape != first.shape:
            raise ValueError(
                f"{file} has shape {image.shape} and {files[0]} has {first.shape}; set data.image_size, the side "
                "length to which images are scaled and cropped, or padded with data.fit='pad'"
            )
    return np.stack(images)
