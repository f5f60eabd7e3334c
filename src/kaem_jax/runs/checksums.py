"""Checksums of arrays, by which a checkpoint is known to hold what was saved: files can change without an error."""

import zlib
from typing import Any

import jax
import numpy as np
from flax import traverse_util

__all__ = ["checksums", "verify_checksums"]


def checksums(nested: dict[str, Any]) -> dict[str, int]:
    """CRC-32 of the bytes of each array, by names such as "params/prior/bank/grid".

    An array of which this process has only a part, as kept chains in a job of several processes, has none.
    """
    found = {}
    for name, leaf in traverse_util.flatten_dict(nested, sep="/").items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            found[name] = zlib.crc32(np.ascontiguousarray(leaf).tobytes())
    return found


def verify_checksums(nested: dict[str, Any], saved: dict[str, int]) -> None:
    """Compares arrays with their checksums at the time when they were saved; names that only one side has are ignored.

    Raises:
      ValueError: an array has other values.
    """
    found = checksums(nested)
    changed = [name for name in sorted(found.keys() & saved.keys()) if found[name] != saved[name]]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(f"{changed[0]}{more} does not have the values that were saved: the files changed on disk")
