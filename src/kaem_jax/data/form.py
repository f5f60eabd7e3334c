"""How data in a user's units become what a model sees, and back. Saved with a run, so that commands can do both."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from kaem_jax.data.columns import Column, Table

__all__ = ["PIXELS", "Field", "Form", "Pixels", "Text", "form_from_dict"]


class Form(Protocol):
    """A static description of data; `kind` is its name in files."""

    kind: ClassVar[str]

    def decode(self, values: np.ndarray) -> Any:
        """What the model makes, [N, *data_shape], in the units of the user."""
        ...

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        """Log p of the model minus log p in the user's units, of x [N, *data_shape], nats [N]: the volume factor."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON, from which `form_from_dict` makes this object again."""
        ...


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Images in [0, 1]: model and user see the same."""

    kind: ClassVar[str] = "pixels"

    def decode(self, values: np.ndarray) -> np.ndarray:
        return values

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}


PIXELS = Pixels()


@dataclasses.dataclass(frozen=True)
class Field:
    """Continuous values [H, W, C] or [D], standardised channel by channel (the last axis), or all together.

    Attributes:
      mean, scale: one for each channel, or one.
    """

    kind: ClassVar[str] = "field"

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Field":
        """Mean and standard deviation of training data [N, *data_shape]."""
        axes = tuple(range(values.ndim - 1)) if values.ndim == 4 else tuple(range(values.ndim))
        mean = np.atleast_1d(np.mean(values, axis=axes, dtype=np.float64))
        scale = np.atleast_1d(np.std(values, axis=axes, dtype=np.float64))
        is_constant = np.atleast_1d(np.max(values, axis=axes) == np.min(values, axis=axes))  # of 0.1, std is 1e-17
        return cls(tuple(mean.tolist()), tuple(np.where(is_constant, 1, scale).tolist()))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Standardised, float32."""
        return ((values - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.sum(~np.isnan(x) * np.log(self.scale), axis=tuple(range(1, x.ndim)))

    def decode(self, values: np.ndarray) -> np.ndarray:
        return (values * np.array(self.scale) + np.array(self.mean)).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Text:
    """Texts as the numbers of their tokens, then zeros: 0 is the end of a text, 1 a token that is not known.

    Attributes:
      level: `character` or `word`, what a token is.
      length: tokens of a text; longer texts are cut, and then have no end.
      vocabulary: the tokens with numbers from 2 on.
    """

    kind: ClassVar[str] = "text"

    level: str
    length: int
    vocabulary: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """V, how many numbers there are."""
        return len(self.vocabulary) + 2

    def tokens(self, text: str) -> list[str]:
        """A text in parts."""
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
        """The opposite of `encode`; an unknown token is a question mark in a lozenge, or <unk>."""
        names = ("", "\N{REPLACEMENT CHARACTER}" if self.level == "character" else "<unk>", *self.vocabulary)
        between = "" if self.level == "character" else " "
        texts = []
        for row in np.asarray(values, int):
            ends = np.flatnonzero(row == 0)
            texts.append(between.join(names[i] for i in row[: ends[0] if len(ends) else len(row)]))
        return texts

    def log_volume(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}


def form_from_dict(saved: Mapping[str, Any]) -> Form:
    """The form that `to_dict` wrote.

    Raises:
      ValueError: it is none.
    """
    try:
        if saved["kind"] == Pixels.kind:
            return Pixels()
        if saved["kind"] == Field.kind:
            return Field(tuple(map(float, saved["mean"])), tuple(map(float, saved["scale"])))
        if saved["kind"] == Table.kind:
            return Table(tuple(Column.from_dict(column) for column in saved["columns"]))
        if saved["kind"] == Text.kind:
            return Text(str(saved["level"]), int(saved["length"]), tuple(map(str, saved["vocabulary"])))
        raise ValueError(f"kind={saved['kind']!r} is not known")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this does not describe data ({error})") from None
