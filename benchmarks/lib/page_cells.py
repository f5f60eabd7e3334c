"""What the tables of `page_tables.py` are made of: chosen lines, their means, numbers as text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Lines = Sequence[Mapping[str, Any]]


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:,.5g}" if known else "-"
    deviation = np.std(known, ddof=1)
    if not deviation:
        return f"{known[0]:,.5g}"
    digits = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{np.mean(known):,.{digits}f} +- {deviation:,.{digits}f}"


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def best(values: Sequence[float], digits: int, largest: bool = True) -> list[str]:
    """Numbers as text, the best of them bold."""
    return bold(values, [f"{value:.{digits}f}" for value in values], largest)


def bold(values: Sequence[float], texts: Sequence[str], largest: bool) -> list[str]:
    """`texts`, bold where they equal that of the best value."""
    top = texts[int(np.argmax(values) if largest else np.argmin(values))]
    return [f"**{text}**" if text == top else text for text in texts]


def mean(lines: Lines, key: str) -> float:
    """The mean of one number of all lines."""
    return float(np.mean([line[key] for line in lines]))


def of_part(lines: Lines, part: str) -> Lines:
    """The lines of one part of a benchmark."""
    return [line for line in lines if line["benchmark"] == part]


def has(line: Mapping[str, Any], **values: str) -> bool:
    """Whether a line has these values."""
    return all(line.get(name) == value for name, value in values.items())
