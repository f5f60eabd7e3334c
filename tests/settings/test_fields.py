"""A class of settings checks what it is given: types, ranges, and what does nothing."""

import dataclasses
import math
import re
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.settings import Settings, positive, read, setting
from kaem_jax.settings.fields import hints_of, is_idle
from kaem_jax.settings.registry import BASES
from tests.settings.kinds import CLASSES, STEADY, required


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Settings):
    """One field of each type."""

    count: int = 3
    rate: float = 0.5
    word: str = ""
    is_on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = ()
    domain: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()
    limit: float | None = None
    basis: Basis = setting(BSpline(), kinds=BASES)
    growth: float = setting(2.0, needs={"count": positive})
    pace: int = setting(1, needs={"mode": ("slow",)})


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**31), 2**31 - 1)
VALUES = {
    "count": INTEGERS, "rate": FLOATS, "word": st.text(), "is_on": st.booleans(),
    "mode": st.sampled_from(["fast", "slow"]), "sizes": st.lists(INTEGERS).map(tuple),
    "domain": st.tuples(FLOATS, FLOATS), "names": st.lists(st.text()).map(tuple),
}  # fmt: skip
ANYTHING = st.one_of(INTEGERS, FLOATS, st.text(), st.booleans(), st.none(), st.lists(INTEGERS), st.binary())


def fits(name, value):
    """Whether a field may hold the value, written without the code that is tested."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "count": is_number and isinstance(value, int), "rate": is_number, "word": isinstance(value, str),
        "is_on": isinstance(value, bool), "mode": value in ("fast", "slow"),
        # One number may stand for a tuple of one.
        "sizes": isinstance(value, list | int),
        "domain": isinstance(value, list) and len(value) == 2, "names": value == [],
    }[name]  # fmt: skip


@STEADY
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_values_of_the_right_type_are_kept(values):
    made = Example(**values)
    for name, value in values.items():
        assert getattr(made, name) == value
    assert hash(made) == hash(Example(**values))


@STEADY
@given(st.sampled_from(sorted(VALUES)), ANYTHING)
def test_values_of_another_type_are_refused_by_name(name, value):
    if fits(name, value):
        return
    with pytest.raises(ValueError, match=rf"^{name}="):
        Example(**{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value, refuses):
    with refuses(ValueError, "rate=", "finite"):
        Example(rate=value)
    with refuses(ValueError, "domain=", "finite"):
        Example(domain=(0.0, value))


def test_what_is_harmless_is_converted():
    made = Example(rate=1, count=np.int64(4), sizes=[8, np.int32(9)], domain=[0, 1], basis="fourier", limit=2)
    assert made == Example(rate=1.0, count=4, sizes=(8, 9), domain=(0.0, 1.0), basis=BASES.get("fourier")(), limit=2.0)
    assert (type(made.rate), type(made.count), type(made.limit)) == (float, int, float)
    assert Example(sizes=8).sizes == (8,)


def test_words_and_tuples_say_what_is_allowed(refuses):
    for value, parts in (
        ({"mode": "fats"}, ["mode='fats'", "did you mean 'fast'?"]),
        ({"mode": "x"}, ["mode='x'", "allowed: fast, slow"]),
        ({"domain": (1.0,)}, ["domain=(1.0,)", "2 entries"]),
        ({"domain": 3.0}, ["domain=3.0", "tuple"]),
        ({"basis": "forier"}, ["basis='forier'", "did you mean 'fourier'?"]),
    ):
        with refuses(ValueError, *parts):
            Example(**value)


def test_what_does_nothing_must_keep_its_default(refuses):
    for values, parts in (
        ({"pace": 2}, ["pace=2 does nothing with mode='fast'", "leave it at 1"]),
        ({"growth": 3.0, "count": 0}, ["growth=3.0 does nothing with count=0", "leave it at 2.0"]),
    ):
        with refuses(ValueError, *parts):
            Example(**values)
    assert Example(pace=2, mode="slow").pace == 2
    assert Example(growth=2.0, count=0).growth == 2.0


def ranged():
    """Every field with a range, of every class."""
    for cls in CLASSES:
        for field in dataclasses.fields(cls):
            limits = {name: field.metadata.get(name) for name in ("low", "high", "above")}
            if any(limit is not None for limit in limits.values()):
                yield pytest.param(cls, field, limits, id=f"{cls.__name__}.{field.name}")


@pytest.mark.parametrize(("cls", "field", "limits"), [*ranged()])
def test_every_range_ends_where_it_says(cls, field, limits):
    """What lies beyond is refused with the field's name; what lies on the end is never refused for its range."""
    is_tuple = "tuple" in str(hints_of(cls)[field.name])
    unit = 1 if re.search(r"\bint\b", str(hints_of(cls)[field.name])) else 1e-9
    out_of_range = re.compile(rf"^{field.name}=.* must be (at least|at most|above) [-0-9.e]+$")

    def attempt(value):
        try:
            read(cls, required(cls) | {field.name: (value,) if is_tuple else value})
        except ValueError as error:
            return str(error)
        return ""

    for name, limit in limits.items():
        if limit is not None:
            sign = -1 if name == "high" else 1
            inside, outside = (limit + unit, limit) if name == "above" else (limit, limit - sign * unit)
            assert out_of_range.match(attempt(outside)), (name, limit, attempt(outside))
            assert not out_of_range.match(attempt(inside)), (name, limit)
    if unit == 1 and limits["high"] is None:  # arrays of default integers hold no more
        assert "at most 2147483647" in attempt(2**31)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_default_is_one_that_the_class_accepts(cls):
    made = read(cls, required(cls))
    assert hash(made) == hash(read(cls, required(cls)))
    for field in dataclasses.fields(cls):
        if field.init and field.default is not dataclasses.MISSING:
            assert getattr(made, field.name) == field.default
            assert is_idle(made, field) is None
            assert dataclasses.replace(made, **{field.name: field.default}) == made
