"""Users' own arrays in an .npz file."""

import pathlib
import zipfile

import numpy as np

from kaem_jax.data.dataset import Examples, Parts, refuse_bytes_of_bits
from kaem_jax.data.own import existing, split
from kaem_jax.errors import DataError, first_line

__all__ = ["load_npz", "read_arrays"]

_ARRAYS = ("train", "test", "images", "train_labels", "test_labels", "labels")
_MAX_LABEL = 2**31 - 1


def load_npz(path: str, *, test_fraction: float, seed: int) -> Parts:
    """Train and test data of a .npz file with arrays `train` and `test`, or one array `images` that is split.

    Arrays are [N, *data_shape], uint8, floating point in [0, 1], or bool. Classes, which only evaluation uses, are
    integers [N] in `train_labels` and `test_labels`, or in `labels` beside `images`.

    Raises:
      DataError: the file is missing or unreadable, or holds something else.
    """
    arrays, names = read_arrays(path, _ARRAYS)
    if {"train", "test"} <= arrays.keys():
        train, test = (_examples(arrays, part, f"{part}_labels", path) for part in ("train", "test"))
        return Parts(train, test)
    if "images" in arrays:
        return Parts(*split(_examples(arrays, "images", "labels", path), test_fraction, seed))
    raise DataError(f"data.path={path!r} holds arrays {names}; wanted: train and test, or images")


def read_arrays(path: str, wanted: tuple[str, ...] | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an .npz file that are among `wanted` (all by default), and the names of all.

    Raises:
      DataError: the file is missing, damaged, encrypted, or needs more memory than there is.
    """
    file = existing(path, "an .npz file")
    try:
        _check_sizes(file)
        with file.open("rb") as opened, np.load(opened) as archive:
            names = list(archive.files)
            return {name: archive[name] for name in names if wanted is None or name in wanted}, names
    except MemoryError:
        raise DataError(f"data.path={path!r} needs more memory than there is") from None
    except Exception as error:  # Python's and NumPy's readers raise many types for damaged and encrypted archives
        raise DataError(f"data.path={path!r} cannot be read as an .npz file: {first_line(error)}") from None


def _check_sizes(file: pathlib.Path) -> None:
    """Refuses an array whose header claims another size than its bytes: NumPy would first make room for the claim."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(stream)
                claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if not dtype.hasobject and claimed != member.file_size - stream.tell():
                    raise ValueError(f"{member.filename} claims shape {shape}, which its bytes do not fill")


def _examples(arrays: dict[str, np.ndarray], name: str, labels_name: str, path: str) -> Examples:
    images, labels = _checked(arrays[name], path), arrays.get(labels_name)
    if labels is None:
        return Examples(images)
    if (
        labels.shape != (len(images),)
        or not np.issubdtype(labels.dtype, np.integer)
        or not 0 <= labels.min() <= labels.max() <= _MAX_LABEL
    ):
        raise DataError(
            f"data.path={path!r} holds {labels_name} of shape {labels.shape} and type {labels.dtype}; wanted: integers "
            f"of shape {(len(images),)} from 0 to {_MAX_LABEL}, one for each of {name}"
        )
    return Examples(images, labels.__getitem__)


def _checked(images: np.ndarray, path: str) -> np.ndarray:
    if images.ndim < 2 or not images.size:
        raise DataError(
            f"data.path={path!r} holds an array of shape {images.shape}; wanted: [N, *data_shape], N > 0 and all sides "
            "above 0"
        )
    refuse_bytes_of_bits(f"data.path={path!r}", images)
    if images.dtype == np.uint8:
        return images
    images = images.astype(np.float32) if images.dtype == bool else images
    if not np.issubdtype(images.dtype, np.floating) or not (images.min() >= 0 and images.max() <= 1):
        raise DataError(f"data.path={path!r} holds {images.dtype} values; wanted: uint8, floats in [0, 1], or bool")
    return images.astype(np.float32)
