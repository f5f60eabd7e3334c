"""Plausible mistakes, and the tests that must see them: `python -m tests.audit [--rooms priors,mcmc]`."""

import pathlib
import tomllib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
MISTAKES = pathlib.Path(__file__).parent / "mistakes"


class Mistake(NamedTuple):
    """`old`, which stands once in `file` (below src/kaem_jax), becomes `new`, and one of `tests` must fail."""

    room: str
    file: str
    old: str
    new: str
    tests: str


def mistakes(rooms=None):
    """Those of the rooms, by default of all."""
    files = [path for path in sorted(MISTAKES.glob("*.toml")) if not rooms or path.stem in rooms]
    return [Mistake(path.stem, **entry) for path in files for entry in tomllib.loads(path.read_text())["mistake"]]
