"""Converts columns of a table to values of its density and back: kinds, powers, bounds, gaps and ties."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kaem_jax.tables.column import Column
from kaem_jax.tables.density import Rows

TableColumns = tuple[Column, ...]
Limits = tuple[float | None, float | None]

_TIES = 0.9  # a column with fewer different values in its rows is blurred
_BLUR = 0.1  # at least, in deviations
_FEW_TEXTS, _NAMES = 20, 0.5  # more different texts than both, by number and by share of the rows, are no categories


def cells_of(column: Any) -> np.ndarray:
    """A pandas or polars column as float64 with NaN in empty cells, or as texts with None."""
    if hasattr(column, "is_null"):  # of polars
        is_number, cells = column.dtype.is_numeric(), column.to_numpy()
        return np.asarray(cells, float) if is_number else _texts(cells, column.is_null().to_numpy())
    if column.dtype.kind in "iuf":
        return column.to_numpy(dtype=float, na_value=np.nan)
    return _texts(column.astype(object).to_numpy(), column.isna().to_numpy())


def _texts(cells: np.ndarray, is_gap: np.ndarray) -> np.ndarray:
    return np.array([None if gap else str(cell) for cell, gap in zip(cells, is_gap, strict=True)], object)


def is_truth(column: Any) -> bool:
    """Whether a column of pandas or polars holds truth values."""
    return str(column.dtype).lower() in ("bool", "boolean")


def typed(cells: np.ndarray, as_truths: bool) -> Any:
    """Numbers, texts or truth values for a frame, from the cells of a column without gaps."""
    if as_truths:
        return cells == "True"
    return cells.tolist() if cells.dtype == object else cells


def described(table: Mapping[str, np.ndarray], transform: str, bounds: Mapping[str, Limits]) -> TableColumns:
    """Describes columns by their training rows; `transform` is `standard` or `power`.

    Raises:
      ValueError: a column has no value, texts that name rows, or numbers out of bounds or too large.
    """
    return tuple(_describe(name, cells, transform, bounds.get(name)) for name, cells in table.items())


def with_scores(
    columns: TableColumns, table: Mapping[str, np.ndarray], rows: np.ndarray, held_out: np.ndarray
) -> TableColumns:
    """The columns with maps of numbers to normal scores, fitted to some rows and chosen on others."""

    def mapped(column: Column) -> Column:
        if column.categories:
            return column
        parts = (table[column.name][index] for index in (rows, held_out))
        fitted, others = (part[~is_gap(part)] for part in parts)
        return column.with_scores(fitted, others) if len(fitted) and len(others) else column

    return tuple(map(mapped, columns))


def _describe(name: str, cells: np.ndarray, transform: str, bounds: Limits | None) -> Column:
    known = cells[~is_gap(cells)]
    if not len(known):
        raise ValueError(f"column {name!r} has no value: leave it out by exclude=[{name!r}]")
    if cells.dtype.kind != "f":
        categories = tuple(sorted(set(known)))
        if name_rows(len(categories), len(known)):
            raise ValueError(
                f"column {name!r} has {len(categories)} different texts in {len(known)} rows, as names have: leave it "
                f"out by exclude=[{name!r}]"
            )
        return Column(name, categories)
    return Column.of_numbers(name, known, transform, *(bounds or (None, None)))


def name_rows(num_texts: int, num_rows: int) -> bool:
    """Whether so many different texts in so many rows are names, and no categories."""
    return num_texts > max(_FEW_TEXTS, _NAMES * num_rows)


def are_counted(numbers: np.ndarray) -> bool:
    """Whether whole numbers occur once each, in any order and with few left out, as row numbers do."""
    numbers = numbers[~is_gap(numbers)]
    if len(numbers) <= _FEW_TEXTS or not is_whole(numbers) or len(np.unique(numbers)) < len(numbers):
        return False
    return bool(np.ptp(numbers) < 1.5 * len(numbers))


def is_whole(cells: np.ndarray) -> bool:
    """Whether all known cells are whole numbers."""
    return cells.dtype.kind == "f" and bool(np.all(np.isnan(cells) | (cells == np.round(cells))))


def numbers_of(columns: TableColumns) -> list[Column]:
    """The columns of numbers, in order."""
    return [column for column in columns if not column.categories]


def encoded(columns: TableColumns, table: Mapping[str, np.ndarray]) -> Rows:
    """Encodes N rows, whose cells are numbers or texts."""
    numbers, codes = [], []
    for column in columns:
        values = column.encode(table[column.name].tolist())
        if column.categories:
            codes.append(np.where(np.isnan(values[:, 0]), -1, values.argmax(axis=1)))
        else:
            numbers.append(values[:, 0])
    num = len(next(iter(table.values())))
    # A table without numbers gets a number that is always 0.
    z = np.stack(numbers, axis=1) if numbers else np.zeros((num, 1), np.float32)
    return Rows(z, np.stack(codes, axis=1) if codes else np.zeros((num, 0), int))


def blurred(seed: int, columns: TableColumns, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds uniform noise to columns with ties: as wide as a step between neighbouring values, and at least `_BLUR`.

    So the density at a value with ties is that of the cell around it.

    Args:
      seed: seed of the noise.
      columns: the columns, standardised, where bounds have become logarithms.
      table: their cells.
    """
    rng, result = np.random.default_rng(seed), dict(table)
    for column in numbers_of(columns):
        values = column.encode(table[column.name].tolist())[:, :1].astype(float)
        known = values[~np.isnan(values)]
        different = np.unique(known)
        if len(different) <= _TIES * len(known):
            width = max(_BLUR, float(np.median(np.diff(different))) if len(different) > 1 else 1.0)
            result[column.name] = column.in_units(values + width * rng.uniform(-0.5, 0.5, values.shape))[:, 0]
    return result


def log_volume(columns: TableColumns, rows: Rows) -> np.ndarray:
    """Log p of the density's values minus log p in the user's units, [N] nats."""
    total = np.zeros(len(rows))
    for column, values in zip(numbers_of(columns), rows.z.T, strict=False):
        total += np.where(np.isnan(values), 0, column.log_volume(values[:, None]))
    return total


def is_gap(cells: np.ndarray) -> np.ndarray:
    """Which cells are empty, bool [N]."""
    return np.isnan(cells) if cells.dtype.kind == "f" else np.array([cell is None for cell in cells])


def middle(draws: list[np.ndarray], column: Column) -> np.ndarray:
    """The mean of draws of a column, or the most frequent category, [N]."""
    if not column.categories:
        return np.mean(draws, axis=0)
    counts = [np.sum(np.array(draws) == category, axis=0) for category in column.categories]
    return np.array(column.categories, object)[np.argmax(counts, axis=0)]
