"""Tables of numbers and categories: users' own CSV, Parquet and .npz files, two of scikit-learn, and toys."""

import csv
import dataclasses
import decimal
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.app.data.arrays import read_arrays
from kaem_jax.app.data.config import SHIPPED_TABLES, DataSettings, parts_of
from kaem_jax.app.data.forms import Table
from kaem_jax.app.data.toys import TOYS, toy_table
from kaem_jax.errors import DataError
from kaem_jax.files.writing import replacing
from kaem_jax.jax_utils.processes import say
from kaem_jax.tables.column import Column, is_empty, warn_of_unknown
from kaem_jax.tables.frames import are_counted, is_whole, name_rows

_MAX_CATEGORIES = 1000
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "?", "null", "NULL"]


def open_table(settings: DataSettings) -> Any:
    """Opens the rows of a table; `arrays` describes the result."""
    is_shipped = settings.name in SHIPPED_TABLES
    table = _shipped(settings.name) if is_shipped else read_table(settings.path)
    label = settings.label or ("label" if is_shipped and "label" in table else "")
    chosen = settings.columns or tuple(column for column in table if column != label)
    if unknown := [name for name in (*chosen, label) if name and name not in table]:
        raise DataError(f"data.columns or data.label: {unknown[0]!r} is not a column; there are {', '.join(table)}")
    size = len(next(iter(table.values())))
    if label and (empty := sum(map(is_empty, table[label]))):
        raise DataError(f"data.label={label!r} has {empty:,} empty cells: fill them in, or leave these rows out")
    labels = np.unique(np.array(table[label]), return_inverse=True)[1] if label else None

    def learn(rows: np.ndarray) -> tuple[np.ndarray, Table]:
        columns = ((name, [table[name][i] for i in rows]) for name in chosen)
        form = Table(tuple(_describe(name, cells, settings.transform) for name, cells in columns))
        warn_of_unknown(form.columns, table)
        return form.encode(table), form

    return parts_of([size], settings), labels, learn


def read_table(path: str, form: Table | None = None) -> dict[str, list[Any]]:
    """The columns of a CSV, TSV, Parquet or .npz file; missing values are None.

    Columns unknown to `form` keep their text, such as 00123 or NA. Without a form every column is parsed: it holds
    numbers if all of its cells are numbers.
    """
    file = pathlib.Path(path).expanduser()
    found = _from_arrays(path) if file.suffix.lower() == ".npz" else _from_polars(file, form)
    if not found or not next(iter(found.values())):
        raise ValueError("it has no rows")
    return found


def write_table(path: pathlib.Path, table: Mapping[str, Sequence[Any]]) -> None:
    """Writes a CSV file, or Parquet if the path ends so; None becomes an empty cell."""
    with replacing(path) as temporary:
        if _is_parquet(path):
            import polars

            polars.DataFrame(dict(table), strict=False).write_parquet(temporary)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))


def _is_parquet(path: pathlib.Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _from_polars(file: pathlib.Path, form: Table | None) -> dict[str, list[Any]]:
    import polars

    is_parquet = _is_parquet(file)
    categories = {column.name: column.categories for column in form.columns} if form else {}

    def parsed(column: Any) -> Any:
        """Numbers if all cells are numbers, else text; booleans are always text."""
        if (form and column.name not in categories) or column.dtype not in (polars.String, polars.Boolean):
            return column
        text = column.cast(polars.String).str.strip_chars()
        if is_parquet:
            return text
        text = text.set(text.is_in(_MISSING).fill_null(False), None)
        numbers = (text.cast(kind, strict=False) for kind in (polars.Int64, polars.Float64))
        all_numbers = (cast for cast in numbers if cast.null_count() == text.null_count())
        return text if categories.get(column.name) else next(all_numbers, text)

    if is_parquet:
        frame = polars.read_parquet(file, glob=False)
    else:
        separator = "\t" if file.suffix.lower() == ".tsv" else ","
        frame = polars.read_csv(file, separator=separator, infer_schema=False, glob=False).rename(str.strip)
        firsts = (name.removesuffix("_duplicated_0") for name in frame.columns if name.endswith("_duplicated_0"))
        if twice := set(firsts) & set(frame.columns):
            raise ValueError(f"it has several columns {min(twice)!r}; give each its own name")
        if frame.width == 1 and set(frame.columns[0]) & set(";\t|,"):
            raise ValueError(f"it has one column, {frame.columns[0]!r}; values must be separated by {separator!r}")
    return {column.name: parsed(column).to_list() for column in frame}


def _from_arrays(path: str) -> dict[str, list[Any]]:
    arrays = read_arrays(path)
    matrix = next((arrays[name] for name in ("X", "x", "data") if name in arrays and arrays[name].ndim == 2), None)
    found = {} if matrix is None else {f"x{i}": column.tolist() for i, column in enumerate(matrix.T)}
    found |= {name: values.tolist() for name, values in arrays.items() if values.ndim == 1}
    if len({len(cells) for cells in found.values()}) != 1:
        raise ValueError(f"it holds arrays {list(arrays)}; wanted: a matrix X [N, D], columns [N], or both")
    return found


def _shipped(name: str) -> dict[str, list[Any]]:
    if name in TOYS:
        return toy_table(name)
    from sklearn import datasets

    bunch = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]()
    columns = {str(column): bunch.data[:, i].tolist() for i, column in enumerate(bunch.feature_names)}
    return columns | {"label": [str(bunch.target_names[i]) for i in bunch.target]}


def _describe(name: str, cells: Sequence[Any], transform: str = "standard") -> Column:
    """Describes a column by its training rows: numbers are standardised, anything else is a category."""
    known = [cell for cell in cells if not is_empty(cell)]
    if known and all(isinstance(cell, int | float | decimal.Decimal) and not isinstance(cell, bool) for cell in known):
        numbers = np.array(known, float)
        if not np.isfinite(numbers).all():
            raise DataError(f"data.columns: column {name!r} has infinite values")
        if are_counted(numbers):
            say(f"column {name!r} counts the rows; if it names them, list the others in data.columns")
        return dataclasses.replace(Column.of_numbers(name, numbers, transform), is_whole=is_whole(numbers))
    texts = [str(cell) for cell in known]
    categories = tuple(sorted(set(texts)))
    words = [text for text in texts if not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text.strip(), re.IGNORECASE)]
    if 0 < len(words) < len(texts) / 2:
        share = 1 - len(words) / len(texts)
        say(f"column {name!r} holds categories: {share:.0%} of its cells are numbers, but not {min(words)!r}")
    if name_rows(len(categories), len(texts)):
        raise DataError(
            f"data.columns: {name!r} has {len(categories)} different texts in {len(texts)} rows, as names have; list "
            "the columns without it"
        )
    if not 2 <= len(categories) <= _MAX_CATEGORIES:
        raise DataError(
            f"data.columns: {name!r} has {len(categories)} different values in the training rows that are not all "
            f"numbers; wanted: 2 to {_MAX_CATEGORIES}, or leave it out"
        )
    return Column(name, categories)
