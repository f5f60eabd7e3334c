"""Converts data in a user's units to values of a model, and back. Its settings are saved with a run, for commands."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kaem_jax.data.yeo_johnson import fitted_power, from_power, log_slope, to_power
from kaem_jax.settings import Registry, Settings, read, to_dict
from kaem_jax.settings.reading import read_kind

__all__ = ["PIXELS", "Column", "Field", "Form", "Pixels", "Table", "Text", "form_from_dict"]

_FEWEST = 3  # different numbers to which a power is fitted: any power keeps two values two


@dataclasses.dataclass(frozen=True)
class Form(Settings):
    """A static description of data."""

    @property
    def kind(self) -> str:
        """The name of this class in files."""
        return FORMS.name_of(type(self))

    def decode(self, values: np.ndarray) -> Any:
        """Converts values of the model, [N, *data_shape], to the user's units."""
        return values

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        """Log p of the model minus log p in the user's units, for x [N, *data_shape]: the volume factor, nats [N]."""
        return np.zeros(len(x))

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON, which `form_from_dict` converts back."""
        return to_dict(self, FORMS)


@dataclasses.dataclass(frozen=True)
class Pixels(Form):
    """Images in [0, 1]: model and user see the same."""


PIXELS = Pixels()


@dataclasses.dataclass(frozen=True)
class Field(Form):
    """Continuous values: [H, W, C] are standardised channel by channel, and [D] all together.

    Attributes:
      mean, scale: one number for each channel, or one for all values.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Field":
        """Mean and standard deviation of training data [N, *data_shape]."""
        axes = (0, 1, 2) if values.ndim == 4 else tuple(range(values.ndim))
        mean, scale = (f(values, axis=axes, dtype=np.float64) for f in (np.mean, np.std))
        is_constant = np.max(values, axis=axes) == np.min(values, axis=axes)  # of 0.1, the computed std is 1e-17
        return cls(tuple(np.atleast_1d(mean)), tuple(np.atleast_1d(np.where(is_constant, 1, scale))))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Standardises values: float32."""
        return ((values - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum(~np.isnan(x) * np.log(self.scale), axis=tuple(range(1, x.ndim)))

    def decode(self, values: np.ndarray) -> np.ndarray:
        return (values * np.array(self.scale) + np.array(self.mean)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Column(Settings):
    """A column of a table.

    Attributes:
      name: its heading.
      categories: the allowed values, as text; empty for a column of numbers.
      mean, scale: mean and standard deviation by which numbers are standardised.
      power: power of the transform that follows, see `kaem_jax.data.yeo_johnson`; 1 changes nothing.
      shift, stretch: mean and standard deviation after the power, by which numbers are standardised again.
      low, high: bounds of the numbers, or None. Bounded numbers first become logarithms or log-odds.
    """

    name: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    power: float = 1.0
    shift: float = 0.0
    stretch: float = 1.0
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_numbers(
        cls, name: str, numbers: np.ndarray, transform: str, low: float | None = None, high: float | None = None
    ) -> "Column":
        """A column whose training rows are `numbers` [N]; `transform` is `standard` or `power`.

        Raises:
          ValueError: a number does not lie between the bounds.
        """
        if (low is not None and numbers.min() <= low) or (high is not None and numbers.max() >= high):
            raise ValueError(
                f"column {name!r} has numbers from {numbers.min():g} to {numbers.max():g}, not inside its bounds "
                f"({low}, {high})"
            )
        numbers = cls(name, low=low, high=high)._unbounded(numbers)
        is_constant = numbers.max() == numbers.min()  # of 0.1 again and again, the computed deviation is 1e-17
        deviation = 0.0 if is_constant else np.std(numbers)  # of 0 and 1e-258 it is 0
        column = cls(name, (), np.mean(numbers), deviation or 1.0, low=low, high=high)
        if transform == "standard" or np.unique(numbers).size < _FEWEST:
            return column
        standard = (numbers - column.mean) / column.scale
        power = fitted_power(standard)
        raised = to_power(standard, power)
        return dataclasses.replace(column, power=power, shift=np.mean(raised), stretch=np.std(raised))

    @property
    def size(self) -> int:
        """The number of values that the model sees for a cell."""
        return len(self.categories) or 1

    @property
    def value_names(self) -> list[str]:
        """A name for each of the values that the model sees."""
        return [f"{self.name}={category}" for category in self.categories] or [self.name]

    def encode(self, cells: Sequence[Any]) -> np.ndarray:
        """[N, size] float32, NaN where a cell is None or holds a category that was not seen in training.

        Raises:
          ValueError: a column of numbers holds something else.
        """
        if self.categories:
            one_hot = dict(zip(self.categories, np.eye(self.size, dtype=np.float32), strict=True))
            missing = np.full(self.size, np.nan, np.float32)
            return np.stack([missing if cell is None else one_hot.get(str(cell), missing) for cell in cells])
        try:
            numbers = np.array(cells, object).astype(float)  # None becomes NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"column {self.name!r} had numbers in training: {error}") from None
        standard = (self._unbounded(numbers) - self.mean) / self.scale
        raised = standard if self.power == 1 else to_power(standard, self.power)
        return ((raised - self.shift) / self.stretch).astype(np.float32)[:, None]

    def decode(self, values: np.ndarray) -> list[Any]:
        """The inverse of `encode`; it gives the most probable category."""
        if not self.categories:
            return [None if np.isnan(v) else float(v) for v in self.in_units(values[:, 0])]
        missing = np.isnan(values).any(axis=1)
        best = np.argmax(np.nan_to_num(values), axis=1)
        return [None if m else self.categories[i] for m, i in zip(missing, best, strict=True)]

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Converts values of the model to the user's units, float64 of any shape; those of categories are unchanged."""
        free = self._standard(values) * self.scale + self.mean
        match self.low, self.high:
            case None, None:
                return free
            case low, None:
                return low + np.exp(free)
            case None, high:
                return high - np.exp(-free)
            case low, high:
                return low + (high - low) / (1 + np.exp(-free))

    def log_volume(self, values: np.ndarray) -> np.ndarray:
        """See `Form.log_volume`; values are [N, size]."""
        if self.categories:
            return np.zeros(len(values))
        standard = np.nan_to_num(self._standard(values[:, 0]))
        total = np.log(self.scale * self.stretch) - log_slope(standard, self.power)
        free = standard * self.scale + self.mean
        if self.low is not None and self.high is not None:
            total += np.log(self.high - self.low) - np.logaddexp(0, free) - np.logaddexp(0, -free)
        elif self.low is not None or self.high is not None:
            total += free if self.high is None else -free
        return np.where(np.isnan(values[:, 0]), 0, total)

    def is_outside(self, numbers: np.ndarray) -> np.ndarray:
        """Which numbers do not lie between the bounds."""
        below = False if self.low is None else numbers <= self.low
        return np.zeros(numbers.shape, bool) | below | (False if self.high is None else numbers >= self.high)

    def _unbounded(self, numbers: np.ndarray) -> np.ndarray:
        """Maps numbers between the bounds to the real line; numbers outside are clipped to their bound first."""
        tiny = np.finfo(float).tiny
        above = 1.0 if self.low is None else np.maximum(numbers - self.low, tiny)
        below = 1.0 if self.high is None else np.maximum(self.high - numbers, tiny)
        is_free = self.low is None and self.high is None
        return numbers if is_free else np.log(above) - np.log(below)

    def _standard(self, values: np.ndarray) -> np.ndarray:
        raised = values.astype(float) * self.stretch + self.shift
        return raised if self.power == 1 else from_power(raised, self.power)


@dataclasses.dataclass(frozen=True)
class Table(Form):
    """Columns of numbers and categories."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        columns = tuple(read(Column, c) if isinstance(c, Mapping) else c for c in self.columns)
        object.__setattr__(self, "columns", columns)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each column, as the likelihood `columns` takes them."""
        return tuple(column.size for column in self.columns)

    def encode(self, table: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Converts columns of a user's table, by name, to float32 [N, D]. An absent column is missing in every row."""
        nothing = [None] * max((len(cells) for cells in table.values()), default=0)
        return np.concatenate([c.encode(table.get(c.name, nothing)) for c in self.columns], axis=1)

    def decode(self, values: np.ndarray) -> dict[str, list[Any]]:
        return {column.name: column.decode(part) for column, part in self._parts(values)}

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """All values [N, D] as numbers; columns of numbers are in the user's units."""
        return np.concatenate([column.in_units(part) for column, part in self._parts(values)], axis=1)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum([column.log_volume(part) for column, part in self._parts(x)], axis=0)

    def _parts(self, values: np.ndarray) -> Iterator[tuple[Column, np.ndarray]]:
        return zip(self.columns, np.split(np.asarray(values), np.cumsum(self.sizes)[:-1], axis=1), strict=True)

    def by_value(self, name: str) -> np.ndarray:
        """The field `name` of the column to which each of the D values belongs."""
        return np.repeat([getattr(column, name) for column in self.columns], self.sizes)


@dataclasses.dataclass(frozen=True)
class Text(Form):
    """Texts as token ids, padded with zeros: 0 is the end of a text, 1 an unknown token.

    Attributes:
      level: what a token is; words are separated by whitespace.
      length: number of ids of a text; longer texts are cut, and then have no end.
      vocabulary: the tokens with ids from 2 on.
    """

    level: Literal["character", "word"]
    length: int
    vocabulary: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """V, the number of token ids."""
        return len(self.vocabulary) + 2

    def tokens(self, text: str) -> list[str]:
        """Splits a text into tokens."""
        return list(text) if self.level == "character" else text.split()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Int32 [N, length]."""
        number = {token: i for i, token in enumerate(self.vocabulary, 2)}
        values = np.zeros((len(texts), self.length), np.int32)
        for row, text in zip(values, texts, strict=True):
            found = [number.get(token, 1) for token in self.tokens(text)[: self.length]]
            row[: len(found)] = found
        return values

    def decode(self, values: np.ndarray) -> list[str]:
        """The inverse of `encode`; an unknown character becomes U+FFFD, and an unknown word <unk>."""
        unknown, between = ("\N{REPLACEMENT CHARACTER}", "") if self.level == "character" else ("<unk>", " ")
        names = ("", unknown, *self.vocabulary)
        is_text = np.cumprod(np.asarray(values) != 0, axis=1, dtype=bool)
        rows = (row[kept] for row, kept in zip(np.asarray(values), is_text, strict=True))
        return [between.join(names[i] for i in row) for row in rows]


FORMS = Registry("form", f"{__name__}:Form", field=Field, pixels=Pixels, table=Table, text=Text)


def form_from_dict(saved: Mapping[str, Any]) -> Form:
    """The form that `to_dict` wrote.

    Raises:
      ValueError: an entry is missing, unknown or of a wrong type.
    """
    return read_kind(FORMS, saved, "form")
