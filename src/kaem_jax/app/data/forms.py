"""Converts data in a user's units to values of a model, and back. Its settings are saved with a run, for commands."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kaem_jax.settings import Registry, Settings, to_dict
from kaem_jax.settings.reading import read_kind
from kaem_jax.tables.column import Column


@dataclasses.dataclass(frozen=True)
class Form(Settings):
    """A static description of data."""

    @property
    def kind(self) -> str:
        return FORMS.name_of(type(self))

    def decode(self, values: np.ndarray) -> Any:
        """Converts values of the model, [N, *data_shape], to the user's units."""
        return values

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        """Log p of the model minus log p in the user's units, for x [N, *data_shape]: nats [N]."""
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
    """Continuous values: [H, W, C] are standardised channel by channel, [D] all together."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Field":
        """Fits mean and standard deviation to training data [N, *data_shape]."""
        axes = (0, 1, 2) if values.ndim == 4 else tuple(range(values.ndim))
        mean, scale = (f(values, axis=axes, dtype=np.float64) for f in (np.mean, np.std))
        is_constant = np.max(values, axis=axes) == np.min(values, axis=axes)  # of 0.1, the computed std is 1e-17
        return cls(tuple(np.atleast_1d(mean)), tuple(np.atleast_1d(np.where(is_constant, 1, scale))))

    def encode(self, values: np.ndarray) -> np.ndarray:
        return ((values - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum(~np.isnan(x) * np.log(self.scale), axis=tuple(range(1, x.ndim)))

    def decode(self, values: np.ndarray) -> np.ndarray:
        return (values * np.array(self.scale) + np.array(self.mean)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Table(Form):
    """Columns of numbers and categories."""

    columns: tuple[Column, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(column.size for column in self.columns)

    def encode(self, table: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Float32 [N, D] from columns of a user's table, by name. An absent column is missing in every row."""
        nothing = [None] * max((len(cells) for cells in table.values()), default=0)
        return np.concatenate([c.encode(table.get(c.name, nothing)) for c in self.columns], axis=1)

    def decode(self, values: np.ndarray) -> dict[str, list[Any]]:
        return {column.name: column.decode(part) for column, part in self._parts(values)}

    def drawn(self, values: np.ndarray) -> dict[str, list[Any]]:
        """`decode` of draws: columns of whole numbers are rounded."""
        cells = self.decode(values)
        return {c.name: list(map(round, cells[c.name])) if c.is_whole else cells[c.name] for c in self.columns}

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """All values [N, D] as numbers, in the user's units except for categories."""
        return np.concatenate([column.in_units(part) for column, part in self._parts(values)], axis=1)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum([column.log_volume(part) for column, part in self._parts(x)], axis=0)

    def _parts(self, values: np.ndarray) -> Iterator[tuple[Column, np.ndarray]]:
        return zip(self.columns, np.split(np.asarray(values), np.cumsum(self.sizes)[:-1], axis=1), strict=True)

    def by_value(self, name: str) -> np.ndarray:
        """The field `name` of the column of each of the D values."""
        return np.repeat([getattr(column, name) for column in self.columns], self.sizes)


@dataclasses.dataclass(frozen=True)
class Text(Form):
    """Texts as token ids, padded with zeros: 0 is the end of a text, 1 an unknown token, 2 the first of the vocabulary.

    Words are separated by whitespace. A text of more than `length` ids is cut, and then has no end.
    """

    level: Literal["character", "word"]
    length: int
    vocabulary: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.vocabulary) + 2

    def tokens(self, text: str) -> list[str]:
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
    """The form that `to_dict` wrote."""
    return read_kind(FORMS, saved, "form")
