"""Users' own images in a folder."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kaem_jax.data.dataset import Examples, Parts
from kaem_jax.data.own import existing, is_folder, split
from kaem_jax.devices.processes import say
from kaem_jax.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "Fit", "Layout", "central_square", "load_folder", "masked_pixels", "read_images"]

Fit = Literal["crop", "pad", "portrait"]

# Others can start programs, whatever the ending of the file is: Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_VALIDATION = ("val", "valid", "validation", "dev")
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_GREY_MODES, _COLOUR_MODES = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa")
_SECONDS_BETWEEN_LINES = 5.0
_OPAQUE = 128  # pixels with less are missing
_PORTRAIT, _CENTRE = (178, 218), 140  # of CelebA, and its usual crop


class Layout(NamedTuple):
    """How images become arrays of one shape.

    Attributes:
      size: side length of the squares that are made; 0 keeps images as they are, which then need one size.
      fit: whether an image that is not square is cropped at its longer side, or padded with black at its shorter.
        `portrait` crops, too, but of an aligned portrait of CelebA keeps the `central_square`, as training does.
      channels: `grey`, `rgb`, or `auto`: grey where the first image is grey.
    """

    size: int = 0
    fit: Fit = "crop"
    channels: Literal["auto", "grey", "rgb"] = "auto"


def load_folder(path: str, *, test_fraction: float, seed: int, layout: Layout) -> Parts:
    """Train and test data of a folder of images: its folders `train` and `test`, or all of it, split.

    Files are read in the order of their names, from sub-folders too. If every image is in a sub-folder, and there are
    several, the sub-folders are the classes, numbered in the order of their names in the training part. Test images
    have no labels if a sub-folder of theirs is no class.

    Raises:
      DataError: there is no such folder, no image in it, an image that cannot be read, images of different sizes, or
        a folder of validation images beside `train` and no `test`.
    """
    folder = existing(path, "a folder of images", is_folder=True)
    named = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    is_split = {"train", "test"} <= named.keys()
    if not is_split and "train" in named and (other := next((name for name in _VALIDATION if name in named), None)):
        raise DataError(
            f"data.path={path!r} has folders {named['train'].name} and {named[other].name} and none called test, which "
            f"would mix them: rename {named[other].name} to test"
        )
    parts = {part: _find(part) for part in ((named["train"], named["test"]) if is_split else (folder,))}
    first, *others = parts.items()
    classes = sorted(set(_classes(*first)))
    for part, files in others:
        if unknown := sorted(set(_classes(part, files)) - set(classes)):
            say(
                f"data.path={path!r}: {part.name}/{unknown[0]} is no class of the training images: held-out images "
                "have no labels"
            )
    layout = layout._replace(channels=_channels(layout, next(iter(parts.values()))[0]))
    examples = [_examples(part, files, classes, layout) for part, files in parts.items()]
    train, test = examples if is_split else split(examples[0], test_fraction, seed)
    return Parts(train, test)


def read_images(path: str, layout: Layout) -> np.ndarray:
    """An image file, or the images of a folder in the order of their names, [N, H, W, C].

    uint8, or floats in [0, 1] with NaN where a pixel is transparent.

    Raises:
      DataError: there is none, one cannot be read, or they have different sizes.
    """
    in_folder = is_folder(path)
    found = existing(path, "an image, or a folder of images", in_folder)
    files = _find(found) if in_folder else [found]
    layout = layout._replace(channels=_channels(layout, files[0]))
    pixels = _read(files, layout)
    masked = [_masked(file, layout) for file in files]
    if all(values is None for values in masked):
        return pixels
    whole = pixels.astype(np.float32) / 255
    return np.stack([whole[i] if values is None else values for i, values in enumerate(masked)])


def _masked(file: pathlib.Path, layout: Layout) -> np.ndarray | None:
    """`masked_pixels` of a file; None where pixels cannot be transparent."""
    with _opened(file) as image:
        if not _has_alpha(image):
            return None
        size = (layout.size, layout.size) if layout.size else _upright(image).size
        return masked_pixels(f"data.path: {file}", image, size, layout.fit, layout.channels)


def masked_pixels(name: str, image: "Image.Image", size: tuple[int, int], fit: Fit, channels: str) -> np.ndarray:
    """An image scaled to `size` (width, height): float32 [H, W, C] in [0, 1], NaN where a pixel is transparent.

    Colours are scaled together with how opaque they are, so that what nobody sees does not change its neighbours.

    Args:
      name: with which messages begin.
      fit, channels: see `Layout`.

    Raises:
      DataError: its pixels have neither 8 nor 16 bits.
    """
    is_hidden: np.ndarray | bool = False
    if _has_alpha(image):
        both = _fitted(_upright(image).convert("RGBA"), size, fit, (0, 0, 0, 255))
        colours = both.convert("L" if channels == "grey" else "RGB")
        is_hidden = np.asarray(both.getchannel("A")) < _OPAQUE
    else:
        colours = _fitted(_in_eight_bits(name, _upright(image), channels), size, fit)
    values = np.asarray(colours, np.float32).reshape(size[1], size[0], -1) / 255
    values[is_hidden] = np.nan
    return values


def _find(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images, also in folders that are links, without hidden files and folders and what is no regular file."""
    files, seen, waiting = [], set(), [os.fspath(folder)]
    while waiting:  # folders first, then what links lead to that is not among them: no image is there twice
        links = []
        for start in waiting:
            for place, folders, names in os.walk(start):
                if (real := os.path.realpath(place)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
                here = (pathlib.Path(place, name) for name in names if not name.startswith("."))
                files += [file for file in here if file.suffix.lower() in _SUFFIXES and file.is_file()]
        waiting = links
    files.sort()
    if not files:
        raise DataError(f"data.path: {folder} holds no images; allowed: {', '.join(sorted(_SUFFIXES))}")
    return files


def _classes(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> list[str]:
    """The sub-folder of every image, nothing if an image is in none."""
    names = [file.relative_to(folder).parts for file in files]
    return [parts[0] for parts in names] if all(len(parts) > 1 for parts in names) else []


def _examples(folder: pathlib.Path, files: Sequence[pathlib.Path], classes: Sequence[str], layout: Layout) -> Examples:
    images, names = _read(files, layout), _classes(folder, files)
    if len(classes) < 2 or not names or not set(names) <= set(classes):
        return Examples(images)
    labels = np.array([classes.index(name) for name in names], np.int32)
    return Examples(images, labels.__getitem__)


def _channels(layout: Layout, first: pathlib.Path) -> Literal["grey", "rgb"]:
    if layout.channels != "auto":
        return layout.channels
    with _opened(first) as image:
        return "grey" if image.mode in _GREY_MODES or image.mode.startswith("I;16") else "rgb"


def _read(files: Sequence[pathlib.Path], layout: Layout) -> np.ndarray:
    """Decodes with one thread for each core, and says how far it is where that takes long."""
    images: list[np.ndarray] = []
    said = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for file, pixels in zip(files, pool.map(lambda file: _decode(file, layout), files), strict=True):
                images.append(pixels)
                if pixels.shape != images[0].shape:
                    raise DataError(
                        f"data.path: {file} has shape {pixels.shape} and {files[0]} has {images[0].shape}; set "
                        "data.image_size to the side length to which all of them are scaled and cropped, or padded "
                        "with data.fit='pad'"
                    )
                if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    say(f"read {len(images):,} of {len(files):,} images")
        finally:
            pool.shutdown(cancel_futures=True)
    return np.stack(images)


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator["Image.Image"]:
    """The image in `file`; whatever Pillow raises becomes a `DataError`."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # each of its plug-ins raises types of its own for a damaged file
        raise DataError(f"data.path: {file} cannot be read as an image: {error}") from None


def _decode(file: pathlib.Path, layout: Layout) -> np.ndarray:
    """One image, uint8 [H, W, C]; transparent pixels are black: each program writes other colours there."""
    if (masked := _masked(file, layout)) is not None:
        return np.round(255 * np.nan_to_num(masked)).astype(np.uint8)
    with _opened(file) as image:
        if layout.size and layout.fit != "portrait":
            image.draft("RGB" if layout.channels == "rgb" else "L", (layout.size, layout.size))  # faster for JPEG
        pixels = _in_eight_bits(f"data.path: {file}", _upright(image), layout.channels)
        if layout.size:
            pixels = _fitted(pixels, (layout.size, layout.size), layout.fit)
        array = np.asarray(pixels, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _has_alpha(image: "Image.Image") -> bool:
    """Whether pixels may be transparent."""
    return image.mode in ("RGBA", "LA", "PA") or (
        "transparency" in image.info and image.mode in _GREY_MODES + _COLOUR_MODES  # no 16 bits: Pillow would clip them
    )


def _upright(image: "Image.Image") -> "Image.Image":
    """Turned as the camera was held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _in_eight_bits(name: str, image: "Image.Image", channels: str) -> "Image.Image":
    """The image in `grey` or colour, 8 bits per channel: the upper ones of 16-bit images, whose values Pillow clips.

    Raises:
      DataError: its pixels have another range; the message begins with `name`.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise DataError(
            f"{name} has pixels of kind {image.mode!r}, whose range is unknown; wanted: 8 or 16 bits: "
            "convert it, or give an .npz file with floats in [0, 1]"
        )
    return image.convert("L" if channels == "grey" else "RGB")


def central_square(portrait: "Image.Image") -> "Image.Image":
    """The 140 x 140 pixels in the middle of a portrait of CelebA, the usual crop."""
    left, top = ((side - _CENTRE) // 2 for side in portrait.size)
    return portrait.crop((left, top, left + _CENTRE, top + _CENTRE))


def _fitted(image: "Image.Image", size: tuple[int, int], fit: Fit, margin: Any = None) -> "Image.Image":
    """An image of `size` (width, height), from the centre of `image` or with margins of this colour, else black."""
    from PIL import Image, ImageOps

    if fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, margin)
    if fit == "portrait" and image.size == _PORTRAIT:
        image = central_square(image)
    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
