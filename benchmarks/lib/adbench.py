"""Tables of ADBench (Han et al., 2022)."""

import pathlib

import numpy as np


def load(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows, float64 [N, D], and their labels [N], 1 for outliers."""
    with np.load(path) as arrays:
        return arrays["X"].astype(float), arrays["y"].ravel()


def normal_rows(path: pathlib.Path) -> np.ndarray:
    """The rows without outliers."""
    x, y = load(path)
    return x[y == 0]
