"""Turns conditions on the cells of a table, such as "age>30, sex=F|M", into bounds on the values of a model."""

import re

import numpy as np

from kaem_jax.app.data.forms import Table
from kaem_jax.tables.column import Column

_CONDITION = re.compile(r"\s*(.+?)\s*(<=|>=|!=|<|>|=)\s*(.+?)\s*")
Bounds = tuple[np.ndarray, np.ndarray]


def bounds_of(form: Table, text: str) -> Bounds:
    """Lower and upper bounds, float32 [D] each, of the values of a row that meets all conditions.

    Commas separate conditions. Numbers are compared by <, <=, >, >= or =, categories by = or !=; bars separate several
    categories. The bounds of a category are 0 and 1, or 0 and 0 if it is excluded.

    Raises:
      ValueError: a condition cannot be read, or no row meets them all.
    """
    columns = {column.name: column for column in form.columns}
    bounds = {name: _anything(column) for name, column in columns.items()}
    for condition in text.split(","):
        found = _CONDITION.fullmatch(condition)
        if not found:
            raise ValueError(f"{condition.strip()!r} is no condition such as age>30, age=31 or sex=F|M")
        name, sign, value = found.groups()
        if name not in columns:
            raise ValueError(f"there is no column {name!r}; columns are {', '.join(columns)}")
        of_one = _of_category if columns[name].categories else _of_number
        low, high = of_one(columns[name], sign, value)
        low, high = np.maximum(low, bounds[name][0]), np.minimum(high, bounds[name][1])
        if (low > high).any() or (columns[name].categories and not high.any()):
            raise ValueError(f"no row meets all conditions on {name!r}")
        bounds[name] = low, high
    low, high = (np.concatenate(parts) for parts in zip(*bounds.values(), strict=True))
    return low, high


def _anything(column: Column) -> Bounds:
    low, high = (0, 1) if column.categories else (-np.inf, np.inf)
    return np.full(column.size, low, np.float32), np.full(column.size, high, np.float32)


def _of_category(column: Column, sign: str, value: str) -> Bounds:
    names = [name.strip() for name in value.split("|")]
    unknown = set(names) - set(column.categories)
    if unknown or sign not in ("=", "!="):
        wanted = f"{column.name}= or {column.name}!= and some of {', '.join(column.categories)}"
        raise ValueError(f"{column.name}{sign}{value} must be {wanted}")
    is_named = np.isin(column.categories, names)
    return np.zeros(column.size, np.float32), (is_named == (sign == "=")).astype(np.float32)


def _of_number(column: Column, sign: str, value: str) -> Bounds:
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number) or sign == "!=":
        raise ValueError(f"{column.name}{sign}{value} must compare a number by <, <=, >, >= or =")
    at = column.encode([number])[:, 0]
    low, high = _anything(column)
    # A strict comparison starts at the next float32 number.
    match sign:
        case ">":
            low = np.nextafter(at, high)
        case "<":
            high = np.nextafter(at, low)
        case ">=":
            low = at
        case "<=":
            high = at
        case "=":
            low = high = at
    return low, high
