"""Real images, turned into prepared data directories by the same writer for every test."""

import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SHARED = pathlib.Path(__file__).parents[4] / "shared"


def pixels(name, split, array="images"):
    """The images of a split, or its labels, as their .npz file has them."""
    with np.load(SHARED / "data" / name / f"{split}.npz") as archive:
        return archive[array]


@pytest.fixture(scope="session")
def prepare(tmp_path_factory):
    """prepare(name, limit): the data directory in which tensorflow_datasets finds the first images of each split."""
    if not (SHARED / "tools" / "make_tfds.py").exists():
        pytest.skip(f"{SHARED} with real images and the writer of prepared data is not here")

    @functools.cache
    def write(name, limit, *flags):
        folder = tmp_path_factory.mktemp(name)
        files = [f"{split}={SHARED / 'data' / name / split}.npz" for split in ("train", "test")]
        writer = [sys.executable, str(SHARED / "tools" / "make_tfds.py"), name, str(folder), *files]
        subprocess.run([*writer, "--limit", str(limit), *flags], check=True, capture_output=True, timeout=600)
        return folder

    return write


def by_bytes(values):
    return {value.tobytes() for value in values}
