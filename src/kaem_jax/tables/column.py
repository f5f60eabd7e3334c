"""A column of a table: its cells as values of a model, and back."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kaem_jax.jax_utils.processes import say
from kaem_jax.settings import Settings
from kaem_jax.tables.marginal_map import MarginalMap, fitted_map

_FEWEST = 3  # different numbers to which a power is fitted: any power keeps two values two
_OF_CONSTANT = 1e-6  # deviation of the density of a column of one number, as a share of the number


@dataclasses.dataclass(frozen=True)
class Column(Settings):
    """A column of a table.

    Attributes:
      name: its heading.
      categories: the allowed values, as text; empty for a column of numbers.
      mean, scale: mean and standard deviation by which numbers are standardised.
      power: power of the transform that follows, see `to_power`; 1 changes nothing.
      shift, stretch: mean and standard deviation after the power, by which numbers are standardised again.
      low, high: bounds of the numbers, or None. Bounded numbers first become logarithms or log-odds.
      knots, scores: those of the map to normal scores that comes last, see `MarginalMap`; empty without one.
      is_whole: whether all numbers of training are whole, so that draws are rounded.
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
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    is_whole: bool = False

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
                f"({low}, {high}), which no number may reach"
            )
        numbers = cls(name, low=low, high=high)._unbounded(numbers)
        if numbers.max() == numbers.min():  # of 0.1 again and again, the computed deviation is 1e-17
            scale = _OF_CONSTANT * max(1.0, abs(numbers[0]))
            return cls(name, (), float(numbers[0]), scale, low=low, high=high)
        with np.errstate(over="ignore"):
            deviation = float(np.std(numbers))
        if not np.isfinite(deviation):
            raise ValueError(f"column {name!r} has numbers up to {np.abs(numbers).max():g}: rescale it")
        column = cls(name, (), np.mean(numbers), deviation or 1.0, low=low, high=high)  # of 0 and 1e-258 it is 0
        if transform == "standard" or np.unique(numbers).size < _FEWEST:
            return column
        standard = (numbers - column.mean) / column.scale
        power = fitted_power(standard)
        raised = to_power(standard, power)
        return dataclasses.replace(column, power=power, shift=np.mean(raised), stretch=np.std(raised))

    def with_scores(self, numbers: np.ndarray, held_out: np.ndarray) -> "Column":
        """The column with a map to normal scores, fitted to numbers [N], if held-out numbers gain by it."""
        values = (self.encode(part.tolist())[:, 0].astype(float) for part in (numbers, held_out))
        found = fitted_map(*values)
        return dataclasses.replace(self, knots=found.knots, scores=found.scores) if found else self

    @property
    def size(self) -> int:
        """The number of values that the model sees for a cell."""
        return len(self.categories) or 1

    @property
    def value_names(self) -> list[str]:
        return [f"{self.name}={category}" for category in self.categories] or [self.name]

    def encode(self, cells: Sequence[Any]) -> np.ndarray:
        """Values [N, size] float32, NaN where a cell is None or holds a category unseen in training.

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
        values = (raised - self.shift) / self.stretch
        return (self._map.forward(values)[0] if self.knots else values).astype(np.float32)[:, None]

    def decode(self, values: np.ndarray) -> list[Any]:
        """The inverse of `encode`, with the most probable category."""
        if not self.categories:
            return [None if np.isnan(v) else float(v) for v in self.in_units(values[:, 0])]
        missing = np.isnan(values).any(axis=1)
        best = np.argmax(np.nan_to_num(values), axis=1)
        return [None if m else self.categories[i] for m, i in zip(missing, best, strict=True)]

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Values of the model in the user's units, float64 of any shape; those of categories are unchanged."""
        free = self._without_power(self._before_map(values)) * self.scale + self.mean
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
        before = np.nan_to_num(self._before_map(values[:, 0]))
        standard = self._without_power(before)
        total = np.log(self.scale * self.stretch) - log_slope(standard, self.power)
        if self.knots:
            total -= self._map.forward(before)[1]
        free = standard * self.scale + self.mean
        if self.low is not None and self.high is not None:
            total += np.log(self.high - self.low) - np.logaddexp(0, free) - np.logaddexp(0, -free)
        elif self.low is not None or self.high is not None:
            total += free if self.high is None else -free
        return np.where(np.isnan(values[:, 0]), 0, total)

    def is_outside(self, numbers: np.ndarray) -> np.ndarray:
        below = False if self.low is None else numbers <= self.low
        return np.zeros(numbers.shape, bool) | below | (False if self.high is None else numbers >= self.high)

    def _unbounded(self, numbers: np.ndarray) -> np.ndarray:
        """Maps numbers between the bounds to the real line; numbers outside are clipped to their bound first."""
        tiny = np.finfo(float).tiny
        above = 1.0 if self.low is None else np.maximum(numbers - self.low, tiny)
        below = 1.0 if self.high is None else np.maximum(self.high - numbers, tiny)
        is_free = self.low is None and self.high is None
        return numbers if is_free else np.log(above) - np.log(below)

    @property
    def _map(self) -> MarginalMap:
        return MarginalMap(self.knots, self.scores)

    def _before_map(self, values: np.ndarray) -> np.ndarray:
        return self._map.inverse(values.astype(float)) if self.knots else values.astype(float)

    def _without_power(self, values: np.ndarray) -> np.ndarray:
        raised = values * self.stretch + self.shift
        return raised if self.power == 1 else from_power(raised, self.power)


def warn_of_unknown(columns: Sequence[Column], table: Mapping[str, Sequence[Any]]) -> None:
    """Says how many cells of a table hold categories unseen in training."""
    for column in columns:
        known, cells = set(column.categories), table.get(column.name, ())
        if unknown := [cell for cell in cells if known and not is_empty(cell) and str(cell) not in known]:
            say(
                f"column {column.name!r}: {len(unknown):,} cells (e.g. {unknown[0]!r}) hold categories unseen in "
                "training, and count as missing"
            )


def is_empty(cell: Any) -> bool:
    """Whether a cell of a table has no value."""
    return cell is None or (isinstance(cell, float) and bool(np.isnan(cell)))


def to_power(x: np.ndarray, power: float) -> np.ndarray:
    """Yeo and Johnson's transform (Biometrika, 2000), which makes skewed columns more symmetric.

    A value becomes ((1 + x)^power - 1) / power for x >= 0, and -((1 - x)^(2 - power) - 1) / (2 - power) below.
    """
    from scipy.stats import yeojohnson

    return np.asarray(yeojohnson(x, power))


def from_power(y: np.ndarray, power: float) -> np.ndarray:
    """The inverse of `to_power`."""
    from scipy import special

    return np.sign(y) * special.inv_boxcox1p(np.abs(y), np.where(y >= 0, power, 2 - power))


def log_slope(x: np.ndarray, power: float) -> np.ndarray:
    """The log-derivative of `to_power` at x."""
    return (power - 1) * np.sign(x) * np.log1p(np.abs(x))


def fitted_power(x: np.ndarray) -> float:
    """The power from 0 to 2 under which the values x [N] are most nearly normal.

    Outside [0, 2] the transform has a bounded range, beyond which values of the model would have no inverse.
    """
    from scipy import optimize, stats

    found = optimize.minimize_scalar(lambda p: -stats.yeojohnson_llf(p, x), bounds=(0, 2), method="bounded")
    return round(float(found.x), 2)  # digits in which versions of scipy agree
