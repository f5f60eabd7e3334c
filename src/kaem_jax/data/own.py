"""What users' own data have in common, whatever file they are in: a path that must exist, and a split."""

import pathlib
import stat

import numpy as np

from kaem_jax.data.dataset import Examples
from kaem_jax.errors import DataError

__all__ = ["existing", "is_folder", "split", "split_rows"]


def existing(path: str, what: str, is_folder: bool = False) -> pathlib.Path:
    """The file or folder at `path`, which may begin with `~`.

    Args:
      what: what should be there, for the message.

    Raises:
      DataError: there is nothing, or something else, as a pipe, from which a program could wait for ever.
    """
    try:
        found = pathlib.Path(path).expanduser()
        mode = found.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # the last: the user of ~user is unknown
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"data.path={path!r} cannot be opened ({reason}); give the path of {what}") from None
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        raise DataError(f"data.path={path!r} is no {'folder' if is_folder else 'file'}; give the path of {what}")
    return found


def is_folder(path: str) -> bool:
    """Whether there is a folder at `path`; not if the path cannot be, about which `existing` says more."""
    try:
        return pathlib.Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def split(examples: Examples, test_fraction: float, seed: int) -> tuple[Examples, Examples]:
    """A random split into training and test part, the same in every run with this seed."""
    train, test = split_rows(len(examples.values), test_fraction, seed)
    return examples.take(train), examples.take(test)


def split_rows(size: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `split`, in their order.

    Raises:
      DataError: there are fewer than two.
    """
    if size < 2:
        raise DataError(f"data.path: one example cannot be split into a training and a test part; {size} is there")
    order = np.random.default_rng(seed).permutation(size)
    num_test = min(max(1, round(test_fraction * size)), size - 1)
    return np.sort(order[num_test:]), np.sort(order[:num_test])
