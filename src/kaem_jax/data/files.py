"""Users' own data: an .npz file, or a folder of images."""

import pathlib
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from kaem_jax.data.dataset import DataError, Examples

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["load_folder", "load_npz"]

_ARRAYS = ("train", "test", "images", "train_labels", "test_labels", "labels")
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def load_npz(path: str, test_fraction: float) -> tuple[Examples, Examples]:
    """Train and test data of a .npz file with arrays `train` and `test`, or one array `images` that is split.

    Arrays are [N, *data_shape], uint8 or floating point in [0, 1]. Classes, which only evaluation uses, are integers
    [N] in `train_labels` and `test_labels`, or in `labels` beside `images`.

    Raises:
      DataError: the file is missing or unreadable, or holds something else.
    """
    file = _existing(path, "the path of an .npz file")
    try:
        with file.open("rb") as opened, np.load(opened) as archive:
            arrays = {name: archive[name] for name in archive.files if name in _ARRAYS}
            names = archive.files
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"data.path={path!r} cannot be read as an .npz file: {error}") from None
    if {"train", "test"} <= arrays.keys():
        return _examples(arrays, "train", "train_labels", path), _examples(arrays, "test", "test_labels", path)
    if "images" in arrays:
        return _split(_examples(arrays, "images", "labels", path), test_fraction)
    raise DataError(f"data.path={path!r} holds arrays {names}; wanted: train and test, or images")


def _examples(arrays: dict[str, np.ndarray], name: str, labels_name: str, path: str) -> Examples:
    images, labels = _checked(arrays[name], path), arrays.get(labels_name)
    if labels is None:
        return Examples(images)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise DataError(
            f"data.path={path!r} holds {labels_name} of shape {labels.shape} and type {labels.dtype}; wanted: integers "
            f"of shape {(len(images),)}, 0 or more, one for each of {name}"
        )
    return Examples(images, labels.__getitem__)


def load_folder(path: str, test_fraction: float) -> tuple[Examples, Examples]:
    """Train and test data of a folder of images of one size: its folders `train` and `test`, or all of it, split.

    Files are read in the order of their names, from sub-folders too.

    Raises:
      DataError: there is no such folder, no image in it, or images of different sizes.
    """
    folder = _existing(path, "the path of a folder of images")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return Examples(_read_images(folder / "train")), Examples(_read_images(folder / "test"))
    return _split(Examples(_read_images(folder)), test_fraction)


def _existing(path: str, what: str) -> pathlib.Path:
    found = pathlib.Path(path).expanduser()
    if not path or not found.exists():
        raise DataError(f"data.path={path!r} does not exist; give {what}")
    return found


def _read_images(folder: pathlib.Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(f"data.path: {folder} holds no images; allowed: {', '.join(sorted(_SUFFIXES))}")
    images: list[np.ndarray] = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = _pixels(image)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"data.path: {file} cannot be read as an image: {error}") from None
        images.append(pixels if pixels.ndim == 3 else pixels[..., None])
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"data.path: {file} has shape {images[-1].shape} and {files[0]} has {images[0].shape}; "
                "all images must have one size and number of channels"
            )
    return np.stack(images)


def _pixels(image: "Image.Image") -> np.ndarray:
    """Grey or colour, 8 bits per channel; the upper 8 bits of 16-bit images (Pillow would clip the values)."""
    if image.mode.startswith("I;16"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), np.uint8)


def _split(examples: Examples, test_fraction: float) -> tuple[Examples, Examples]:
    """A fixed random split, the same in every run."""
    size = len(examples.images)
    order = np.random.default_rng(0).permutation(size)
    num_test = max(1, round(test_fraction * size))
    return examples.take(np.sort(order[num_test:])), examples.take(np.sort(order[:num_test]))


def _checked(images: np.ndarray, path: str) -> np.ndarray:
    if images.ndim < 2 or not len(images):
        raise DataError(f"data.path={path!r} holds an array of shape {images.shape}; wanted: [N, *data_shape], N > 0")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) or not (images.min() >= 0 and images.max() <= 1):
        raise DataError(f"data.path={path!r} holds {images.dtype} values; wanted: uint8, or floats in [0, 1]")
    return images.astype(np.float32)
