"""Tables of numbers and categories: users' own CSV, Parquet and .npz files, two of scikit-learn, and toys."""

import csv
import decimal
import functools
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.data.columns import Column, Table
from kaem_jax.data.dataset import Examples, Opened, Parts
from kaem_jax.data.npz import read_arrays
from kaem_jax.data.own import existing, split_rows
from kaem_jax.data.settings import SHIPPED_TABLES
from kaem_jax.data.toys import TOYS, toy_table
from kaem_jax.devices.processes import say
from kaem_jax.errors import DataError, first_line
from kaem_jax.files import replacing

__all__ = ["check_writable", "open_table", "read_table", "unknown_categories", "write_table"]

_SUFFIXES = (".csv", ".npz", ".parquet", ".pq", ".tsv")
_MAX_CATEGORIES = 1000
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "?", "null", "NULL"]


def open_table(
    name: str, path: str, *, test_fraction: float, seed: int, columns: Sequence[str], label: str, transform: str
) -> Opened:
    """Train and test rows, whose scales and categories are those of the rows that are trained on.

    Args:
      name: one of `kaem_jax.data.settings.TABLES`.
      path: of a `table`: a CSV, TSV or Parquet file, or an .npz file of columns, or of a matrix X and labels y.
      test_fraction: of the rows, chosen by a fixed permutation.
      seed: of the permutation.
      columns: names of those that are modelled; none: all but `label`.
      label: a column of classes, which the model does not see; may be empty.
      transform: of columns of numbers, `standard` or `power`; see `Column`.

    Raises:
      DataError: the file is missing or unreadable, a column is not there, or has nothing to model.
    """
    table = _shipped(name) if name in SHIPPED_TABLES else read_table(path)
    label = label or ("label" if name in SHIPPED_TABLES and "label" in table else "")
    missing = [wanted for wanted in (*columns, *([label] if label else [])) if wanted not in table]
    if missing:
        raise DataError(f"data.columns or data.label: {missing[0]!r} is not a column; there are {', '.join(table)}")
    if label in columns or len(set(columns)) < len(columns):
        raise DataError(
            f"data.columns={tuple(columns)} must name each column once, and not data.label={label!r}, which the model "
            "does not see"
        )
    chosen = list(columns) or [column for column in table if column != label]
    size = len(next(iter(table.values())))
    train_rows, test_rows = split_rows(size, test_fraction, seed)
    labels = _classes(table[label], label) if label else None

    def learn(rows: np.ndarray) -> Parts:
        known = train_rows[rows]
        form = Table(tuple(_describe(name, _take(table[name], known), transform) for name in chosen))
        try:
            encoded = form.encode({column: table[column] for column in chosen})
        except ValueError as error:
            raise DataError(f"data.columns: {error}") from None
        others = np.setdiff1d(np.arange(size), known)
        held_out = {column: _take(table[column], others) for column in chosen}
        for found in unknown_categories(form, held_out, encoded[others]):
            say(f"rows that are not trained on, {found}: where such rows are judged, they count as missing")
        everything = Examples(encoded, None if labels is None else labels.__getitem__)
        return Parts(everything.take(train_rows), everything.take(test_rows), form)

    return Opened(len(train_rows), learn)


def _classes(cells: Sequence[Any], label: str) -> np.ndarray:
    """The class of each cell of the column `label`, numbered in order: int32 [N]."""
    if empty := sum(map(_is_empty, cells)):
        raise DataError(f"data.label={label!r} has {empty:,} empty cells: fill them in, or leave these rows out")
    names = _in_order({str(value) for value in cells})
    return np.array([names.index(str(value)) for value in cells], np.int32)


def read_table(path: str, as_text: Sequence[str] = (), known: Collection[str] | None = None) -> dict[str, list[Any]]:
    """The columns of a file; missing values are None.

    Args:
      path: of the file.
      as_text: columns of categories, read as text. The types of the others are inferred from the whole file: `01`
        beside `A1` is a text, alone it is the number 1.
      known: columns that are interpreted. In CSV and TSV files all others keep the text that stands there, such as
        00123 or NA. None interprets all.

    Raises:
      DataError: the file is missing or unreadable, or holds no rows.
    """
    file = existing(path, f"a table ({', '.join(_SUFFIXES)})")
    suffix = file.suffix.lower()
    if suffix == ".npz":
        found = _from_arrays(path)
    elif suffix in (".csv", ".tsv", ".parquet", ".pq"):
        found = _from_polars(file, path, as_text, known)
    else:
        raise DataError(f"data.path={path!r} ends in {suffix!r}; allowed for a table: {', '.join(_SUFFIXES)}")
    if not found or not next(iter(found.values())):
        raise DataError(f"data.path={path!r} has no rows")
    return found


def unknown_categories(form: Table, table: Mapping[str, Sequence[Any]], values: np.ndarray) -> Iterator[str]:
    """Says, for each column of `table`, how many cells hold a category that training did not see.

    Args:
      form: the columns of training.
      table: cells by the name of their column.
      values: what `form.encode` made of them.
    """
    for column, end in zip(form.columns, np.cumsum(form.sizes), strict=True):
        if column.categories and column.name in table:
            cells = zip(table[column.name], np.isnan(values[:, end - 1]), strict=True)
            unknown = [cell for cell, is_missing in cells if is_missing and not _is_empty(cell)]
            if unknown:
                yield f"column {column.name!r}: {len(unknown):,} cells, as {unknown[0]!r}, are no category of training"


def check_writable(path: pathlib.Path) -> None:
    """Raises a DataError where `write_table` could not write a file of this kind."""
    if path.suffix.lower() in (".parquet", ".pq"):
        _polars()


def write_table(path: pathlib.Path, table: Mapping[str, Sequence[Any]]) -> None:
    """Writes a CSV file, or Parquet by the ending; None is an empty cell.

    Raises:
      DataError: Parquet needs polars, and it is not installed.
    """
    with replacing(path) as temporary:
        if path.suffix.lower() in (".parquet", ".pq"):
            _polars().DataFrame(dict(table), strict=False).write_parquet(temporary)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))


def _polars() -> Any:
    try:
        import polars
    except ImportError:
        raise DataError("reading tables, and writing Parquet, needs polars: pip install polars") from None
    return polars


def _from_polars(
    file: pathlib.Path, path: str, as_text: Sequence[str], known: Collection[str] | None
) -> dict[str, list[Any]]:
    polars = _polars()
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            frame = polars.read_parquet(file, glob=False)
        else:
            read = functools.partial(
                polars.read_csv, file, separator=_separator_of(file), infer_schema_length=None, glob=False
            )
            names = {name: name.strip() for name in read(n_rows=0, infer_schema=False).columns}
            # Of as many overrides as there are columns some versions of polars take the names for those of the file.
            there = [name for name, stripped in names.items() if stripped in as_text]
            frame = read(null_values=_MISSING, schema_overrides=dict.fromkeys(there, polars.String)).rename(names)
            frame = frame.with_columns(
                _without_spaces(column, column.name in as_text) for column in frame if column.dtype == polars.String
            )
            if known is not None and (others := [name for name in frame.columns if name not in known]):
                frame = frame.with_columns(read(infer_schema=False).rename(names)[others])
    except Exception as error:  # its reader raises types of its own
        raise DataError(f"data.path={path!r} cannot be read as a table: {first_line(error)}") from None
    if len(frame.columns) == 1 and (found := set(frame.columns[0]) & set(";\t|,")):
        raise DataError(
            f"data.path={path!r} has one column, {frame.columns[0]!r}: values are separated by {min(found)!r}, "
            f"and must be by {_separator_of(file)!r}"
        )
    return {name: frame[name].to_list() for name in frame.columns}


def _without_spaces(column: Any, as_text: bool) -> Any:
    """A column of text without the spaces around its cells, which hide numbers and gaps: numbers if all cells are.

    A column without such spaces stays as polars has read it.
    """
    polars = _polars()
    text = column.str.strip_chars()
    if not (text != column).any():
        return column
    text = text.set(text.is_in(_MISSING).fill_null(False), None)
    numbers = text.cast(polars.Float64, strict=False)
    return text if as_text or numbers.null_count() > text.null_count() else numbers


def _separator_of(file: pathlib.Path) -> str:
    return "\t" if file.suffix.lower() == ".tsv" else ","


def _from_arrays(path: str) -> dict[str, list[Any]]:
    arrays, names = read_arrays(path)
    matrix = next((arrays[name] for name in ("X", "x", "data") if name in arrays and arrays[name].ndim == 2), None)
    if matrix is not None:
        found = {f"x{i}": matrix[:, i].tolist() for i in range(matrix.shape[1])}
        others = {
            name: value for name, value in arrays.items() if value is not matrix and value.shape == (len(matrix),)
        }
    else:
        found, others = {}, {name: value for name, value in arrays.items() if value.ndim == 1}
        if len({len(value) for value in others.values()}) != 1:
            raise DataError(
                f"data.path={path!r} holds arrays {names}; wanted: a matrix X [N, D], or one-dimensional columns of "
                "one length"
            )
    return found | {name: value.tolist() for name, value in others.items()}


def _shipped(name: str) -> dict[str, list[Any]]:
    if name in TOYS:
        return dict(toy_table(name))
    from sklearn import datasets

    bunch = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]()
    columns = {str(column): bunch.data[:, i].tolist() for i, column in enumerate(bunch.feature_names)}
    return columns | {"label": [str(bunch.target_names[i]) for i in bunch.target]}


def _take(values: Sequence[Any], rows: np.ndarray) -> list[Any]:
    return [values[i] for i in rows]


def _in_order(names: set[str]) -> list[str]:
    """Numbers by their size, anything else as text; the order of a set is another one in each process."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if not np.isfinite(list(numbers.values())).all():
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))


def _describe(name: str, values: Sequence[Any], transform: str = "standard") -> Column:
    """What kind of column this is, by its training rows: numbers are standardised, anything else is a category."""
    known = [value for value in values if not _is_empty(value)]
    if not known:
        raise DataError(f"data.columns: {name!r} has no values in the training rows; leave it out")
    if all(isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool) for value in known):
        numbers = np.array(known, float)
        if not np.isfinite(numbers).all():
            raise DataError(f"data.columns: column {name!r} has infinite values")
        return Column.of_numbers(name, numbers, transform)
    texts = [str(value) for value in known]
    categories = tuple(sorted(set(texts)))
    if odd := sorted({text for text in texts if not _is_number(text)}):
        share = sum(map(_is_number, texts)) / len(texts)
        if share > 0.5:
            say(f"column {name!r} holds categories: {share:.0%} of its values are numbers, and {odd[0]!r} is none")
    if len(categories) == 1:
        raise DataError(f"data.columns: {name!r} has one value only, {categories[0]!r}; leave it out")
    if len(categories) > _MAX_CATEGORIES:
        raise DataError(
            f"data.columns: {name!r} has {len(categories)} different values that are no numbers; leave it out"
        )
    return Column(name, categories)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
