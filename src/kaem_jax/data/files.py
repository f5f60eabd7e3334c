"""Users' own data: an .npz file, or a folder of images."""

import pathlib

import numpy as np

from kaem_jax.data.dataset import DataError

__all__ = ["load_folder", "load_npz"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def load_npz(path: str, test_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Train and test data of a .npz file with arrays `train` and `test`, or one array `images` that is split.

    Arrays are [N, *data_shape], uint8 or floating point in [0, 1].

    Raises:
      DataError: the file is missing or unreadable, or holds something else.
    """
    file = _existing(path, "the path of an .npz file")
    try:
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files if name in ("train", "test", "images")}
            names = archive.files
    except (OSError, ValueError) as error:
        raise DataError(f"data.path={path!r} cannot be read as an .npz file: {error}") from None
    if {"train", "test"} <= arrays.keys():
        train, test = arrays["train"], arrays["test"]
    elif "images" in arrays:
        train, test = _split(arrays["images"], test_fraction)
    else:
        raise DataError(f"data.path={path!r} holds arrays {names}; wanted: train and test, or images")
    return _checked(train, path), _checked(test, path)


def load_folder(path: str, test_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Train and test data of a folder of images of one size: its folders `train` and `test`, or all of it, split.

    Files are read in the order of their names, from sub-folders too.

    Raises:
      DataError: there is no such folder, no image in it, or images of different sizes.
    """
    folder = _existing(path, "the path of a folder of images")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _read_images(folder / "train"), _read_images(folder / "test")
    return _split(_read_images(folder), test_fraction)


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
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"), np.uint8)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"data.path: {file} cannot be read as an image: {error}") from None
        images.append(pixels if pixels.ndim == 3 else pixels[..., None])
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"data.path: {file} has shape {images[-1].shape} and {files[0]} has {images[0].shape}; "
                "all images must have one size and number of channels"
            )
    return np.stack(images)


def _split(images: np.ndarray, test_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """A fixed random cut, the same in every run."""
    order = np.random.default_rng(0).permutation(len(images))
    num_test = max(1, round(test_fraction * len(images)))
    return images[np.sort(order[num_test:])], images[np.sort(order[:num_test])]


def _checked(images: np.ndarray, path: str) -> np.ndarray:
    if images.ndim < 2 or not len(images):
        raise DataError(f"data.path={path!r} holds an array of shape {images.shape}; wanted: [N, *data_shape], N > 0")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) or not (images.min() >= 0 and images.max() <= 1):
        raise DataError(f"data.path={path!r} holds {images.dtype} values; wanted: uint8, or floats in [0, 1]")
    return images.astype(np.float32)
