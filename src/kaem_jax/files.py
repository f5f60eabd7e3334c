"""Writes files that a reader never sees half written, and JSON that every reader accepts."""

import contextlib
import errno
import itertools
import json
import math
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = [
    "folder_for_damaged",
    "json_ready",
    "moved_away",
    "replacing",
    "unused",
    "write_json",
    "write_lines",
    "write_npz",
]


_CANNOT_SAY = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)  # the last: Windows, of a file to be read


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path in the same folder. It replaces `path` when the block ends without an error.

    A machine that loses its power has the file as it was, or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may draw the same picture, and in two containers both may have the number 1.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # not every system opens folders, and the file is whole
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    """Waits until the disk has a file, or the names in a folder, where the file system can say so.

    Raises:
      OSError: it has not, for instance because it is full, which some systems only notice here.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SAY:
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def moved_away(path: pathlib.Path | None) -> Iterator[None]:
    """Moves a file away: for good if the block ends without an error, else it comes back. None is no file."""
    if path is None:
        yield
        return
    aside = path.with_name(f".before.{path.name}")
    if path.exists():
        path.replace(aside)
    if not aside.exists():  # else it was moved now, or by a process that was killed meanwhile
        yield
        return
    try:
        yield
    except BaseException:
        aside.replace(path)
        raise
    aside.unlink()


def write_npz(path: pathlib.Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """Writes arrays under their names into one file, whatever its ending is."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # of a mere name NumPy would change the ending
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Writes texts, one in each line, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def folder_for_damaged(root: pathlib.Path) -> pathlib.Path:
    """The folder inside `root` into which damaged files are moved: `damaged`, or `damaged-1` if that is a file."""
    found = next(path for path in _numbered(root / "damaged") if path.is_dir() or not path.exists())
    found.mkdir(exist_ok=True)
    return found


def unused(path: pathlib.Path) -> pathlib.Path:
    """`path`, or the first of `path-1`, `path-2`, ... that does not exist."""
    return next(candidate for candidate in _numbered(path) if not candidate.exists())


def _numbered(path: pathlib.Path) -> Iterator[pathlib.Path]:
    yield path
    for number in itertools.count(1):
        yield path.with_name(f"{path.name}-{number}")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON; numbers that are not finite become null, because JSON cannot hold them."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n")


def json_ready(value: Any) -> Any:
    """`value` with null in place of numbers that are not finite, because JSON cannot hold them."""
    if isinstance(value, dict):
        return {key: json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
