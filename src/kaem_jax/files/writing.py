"""Writes files that a reader never sees half written, and JSON that every reader accepts."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path in the same folder. It replaces `path` when the block ends without an error.

    After a power failure the file is either the old one or the complete new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write the same file, and in two containers both may have process id 1.
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # some systems notice only here that the disk is full
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_npz(path: pathlib.Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """Writes named arrays to one .npz archive; the path may have any ending."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # of a mere name NumPy would change the ending
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Writes texts, one in each line, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON; numbers that are not finite become null, because JSON cannot hold them."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n")


def json_ready(value: Any) -> Any:
    """`value` with null in place of numbers that are not finite, because JSON cannot hold them."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
