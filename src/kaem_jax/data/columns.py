"""What a table is for a model: its columns, how they become numbers, and back."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kaem_jax.data.power import fitted_power, from_power, log_slope, to_power

__all__ = ["Column", "Table", "spelled_like"]

_FEWEST = 3  # different numbers that a power can be fitted to: two stay two, whatever it is


def _spelled(category: str) -> str:
    """A category, with one spelling for truth values."""
    return category.title() if category.lower() in ("true", "false") else category


def spelled_like(category: str, given: Iterable[Any]) -> str | bool:
    """`category`. A truth value is spelled like the first one among the cells `given`: a bool, true, TRUE or True."""
    truths = ("True", "False")
    first = next((cell for cell in given if _spelled(str(cell)) in truths), None)
    if first is None or _spelled(category) not in truths:
        return category
    if isinstance(first, bool):
        return _spelled(category) == "True"
    return category.lower() if first.islower() else category.upper() if first.isupper() else _spelled(category)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      name: its heading.
      categories: the values that it may have, as text; nothing for numbers.
      mean, scale: of a column of numbers, by which they are standardised.
      power: to which they are raised then, see `kaem_jax.data.power`; 1 leaves them.
      shift, stretch: mean and standard deviation after it, by which they are standardised again.
    """

    name: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    power: float = 1.0
    shift: float = 0.0
    stretch: float = 1.0

    @classmethod
    def of_numbers(cls, name: str, numbers: np.ndarray, transform: str) -> "Column":
        """A column whose training rows are `numbers` [N]; `transform` is `standard` or `power`."""
        if numbers.max() == numbers.min():  # of 0.1 again and again, the computed deviation is 1e-17
            return cls(name, (), float(np.mean(numbers)), 1.0)
        column = cls(name, (), float(np.mean(numbers)), float(np.std(numbers)))
        if transform == "standard" or np.unique(numbers).size < _FEWEST:
            return column
        standard = (numbers - column.mean) / column.scale
        power = fitted_power(standard)
        raised = to_power(standard, power)
        shift, stretch = float(np.mean(raised)), float(np.std(raised))
        return dataclasses.replace(column, power=power, shift=shift, stretch=stretch)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Column":
        """What `dataclasses.asdict` made of a column; columns of older runs have no powers."""
        later = {name: float(saved[name]) for name in ("power", "shift", "stretch") if name in saved}
        categories = tuple(map(str, saved["categories"]))
        return cls(str(saved["name"]), categories, float(saved["mean"]), float(saved["scale"]), **later)

    @property
    def size(self) -> int:
        """Values that the model sees."""
        return len(self.categories) or 1

    @property
    def value_names(self) -> list[str]:
        """A name for each of these values."""
        return [f"{self.name}={category}" for category in self.categories] or [self.name]

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        """[N, size] float32, NaN where a value is missing or, for a category, was not seen in training.

        Truth values are the same however they are spelled: a file of True and False is read as such, and one that holds
        another word beside them as text.

        Raises:
          ValueError: a column of numbers holds something else, or infinity.
        """
        if not self.categories:
            standard = (np.array([self._number(value) for value in values]) - self.mean) / self.scale
            raised = standard if self.power == 1 else to_power(standard, self.power)
            return ((raised - self.shift) / self.stretch).astype(np.float32)[:, None]
        rows = np.eye(self.size, dtype=np.float32)
        exact = dict(zip(self.categories, rows, strict=True))
        alike = {_spelled(name): row for name, row in exact.items()} | exact
        nothing = np.full(self.size, np.nan, np.float32)
        texts = [None if value is None else str(value) for value in values]
        return np.stack([nothing if t is None else alike.get(t, alike.get(_spelled(t), nothing)) for t in texts])

    def _number(self, value: Any) -> float:
        try:
            number = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"column {self.name!r} holds {value!r}, and had numbers in training") from None
        if np.isinf(number):
            raise ValueError(f"column {self.name!r} has infinite values")
        return number

    def decode(self, values: np.ndarray) -> list[Any]:
        """The opposite of `encode`; the most probable category."""
        if not self.categories:
            return [None if np.isnan(v) else float(v) for v in self.in_units(values[:, 0])]
        missing = np.isnan(values).any(axis=1)
        best = np.argmax(np.nan_to_num(values), axis=1)
        return [None if m else self.categories[i] for m, i in zip(missing, best, strict=True)]

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Numbers that the model sees in the units of the user, float64 of any shape; shares of categories stay."""
        return self._standard(values) * self.scale + self.mean

    def log_volume(self, values: np.ndarray) -> np.ndarray:
        """See `Form.log_volume`: of values [N, size]."""
        if self.categories:
            return np.zeros(len(values))
        standard = self._standard(values[:, 0])
        return np.nan_to_num(np.log(self.scale * self.stretch) - log_slope(standard, self.power))

    def _standard(self, values: np.ndarray) -> np.ndarray:
        raised = values.astype(float) * self.stretch + self.shift
        return raised if self.power == 1 else from_power(raised, self.power)


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of numbers and categories."""

    kind: ClassVar[str] = "table"

    columns: tuple[Column, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """As the likelihood `columns` takes them."""
        return tuple(column.size for column in self.columns)

    def encode(self, table: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Columns of a user's table by name, to float32 [N, D]. A column that is not there is missing everywhere."""
        size = max((len(values) for values in table.values()), default=0)
        nothing = [None] * size
        return np.concatenate([c.encode(table.get(c.name, nothing)) for c in self.columns], axis=1)

    def decode(self, values: np.ndarray) -> dict[str, list[Any]]:
        return {c.name: c.decode(part) for c, part in zip(self.columns, self._parts(values), strict=True)}

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """All values [N, D] as numbers: those of columns of numbers in the units of the user."""
        parts = zip(self.columns, self._parts(values), strict=True)
        return np.concatenate([column.in_units(part) for column, part in parts], axis=1)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum([c.log_volume(part) for c, part in zip(self.columns, self._parts(x), strict=True)], axis=0)

    def _parts(self, values: np.ndarray) -> list[np.ndarray]:
        return np.split(np.asarray(values), np.cumsum(self.sizes)[:-1], axis=1)

    def by_value(self, name: str) -> np.ndarray:
        """The field `name` of the column to which each of the D values belongs."""
        return np.repeat([getattr(column, name) for column in self.columns], self.sizes)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": [dataclasses.asdict(column) for column in self.columns]}
