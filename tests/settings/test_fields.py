"""A class of settings checks what it is given: types, ranges, and what does nothing."""

import dataclasses
import math
import re
import types
import typing
from typing import Literal

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.settings import Settings, read, setting
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
    growth: float = setting(2.0, needs={"count": bool})
    pace: int = setting(1, needs={"mode": ("slow",)})


TEXT = st.text("abcdefgh_", min_size=1, max_size=12)


def wrong_type(hint):
    """Values that are not of the annotated type, None where every value is taken."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    nowhere, no_number = [st.none(), st.just({})], [TEXT, st.booleans(), st.lists(st.integers(), max_size=2)]
    if origin is Literal:
        return st.one_of(*nowhere, TEXT.filter(lambda word: word not in args), st.integers(), st.booleans())
    if origin is tuple:
        entry = wrong_type(args[0]).filter(lambda value: not isinstance(value, list | tuple))
        size = 2 if args[-1] is Ellipsis else len(args)
        return st.one_of(TEXT, *nowhere, st.lists(entry, min_size=size, max_size=size))
    return {
        bool: st.one_of(*nowhere, TEXT, st.integers(), st.floats()),
        int: st.one_of(*nowhere, *no_number, st.floats()),
        float: st.one_of(*nowhere, *no_number, st.sampled_from([math.nan, math.inf, -math.inf])),
        str: st.one_of(*nowhere, st.integers(), st.booleans(), st.binary()),
    }.get(None if origin in (typing.Union, types.UnionType) else hint)  # a union takes objects of a user's own


def values_of(cls):
    """(name, annotation, field) of the fields that are values, not objects."""
    return [
        (field.name, hints_of(cls)[field.name], field)
        for field in dataclasses.fields(cls)
        if field.init and field.metadata.get("kinds") is None and not isinstance(field.default, Settings)
    ]


BAD = [
    (cls, st.tuples(st.just(name), wrong))
    for cls in (Example, *CLASSES)
    for name, hint, _ in values_of(cls)
    if issubclass(cls, Settings) and (wrong := wrong_type(hint)) is not None
]


@hypothesis.settings(STEADY, max_examples=600)
@given(st.one_of(st.tuples(st.just(cls), pairs) for cls, pairs in BAD))
def test_what_a_field_cannot_be_is_refused_by_name_and_value(case):
    cls, (name, value) = case
    with pytest.raises(ValueError, match=f"^{name}=") as caught:
        cls(**required(cls) | {name: value})
    message = str(caught.value)
    assert "\n" not in message
    assert any(repr(shown) in message for shown in (value, *(value if isinstance(value, list | tuple) else ())))


def test_what_is_harmless_is_converted():
    made = Example(rate=1, count=np.int64(4), sizes=[8, np.int32(9)], domain=[0, 1], basis="fourier", limit=2)
    assert made == Example(rate=1.0, count=4, sizes=(8, 9), domain=(0.0, 1.0), basis=BASES.get("fourier")(), limit=2.0)
    assert (type(made.rate), type(made.count), type(made.limit)) == (float, int, float)
    assert Example(sizes=8).sizes == (8,)
    assert Example(pace=2, mode="slow").pace == 2
    assert Example(growth=2.0, count=0).growth == 2.0


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"mode": "fats"}, ["mode='fats'", "did you mean 'fast'?"]),
        ({"mode": "x"}, ["mode='x'", "allowed: fast, slow"]),
        ({"domain": (1.0,)}, ["domain=(1.0,)", "2 entries"]),
        ({"domain": (0.0, math.nan)}, ["domain=", "finite"]),
        ({"basis": "forier"}, ["basis='forier'", "did you mean 'fourier'?"]),
        ({"pace": 2}, ["pace=2 does nothing with mode='fast'", "leave it at 1"]),
        ({"growth": 3.0, "count": 0}, ["growth=3.0 does nothing with count=0", "leave it at 2.0"]),
    ],
    ids=str,
)
def test_refusals_say_what_is_allowed(values, parts, refuses):
    with refuses(ValueError, *parts):
        Example(**values)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_range_ends_where_it_says(cls):
    """What lies beyond is refused with the field's name; what lies on the end is never refused for its range."""
    for field in dataclasses.fields(cls):
        limits = {name: field.metadata.get(name) for name in ("low", "high", "above")}
        if all(limit is None for limit in limits.values()):
            continue
        hint = str(hints_of(cls)[field.name])
        unit = 1 if re.search(r"\bint\b", hint) else 1e-9
        out_of_range = re.compile(rf"^{field.name}=.* must be (at least|at most|above) [-0-9.e]+$")

        def attempt(value, name=field.name, is_tuple="tuple" in hint):
            try:
                read(cls, required(cls) | {name: (value,) if is_tuple else value})
            except ValueError as error:
                return str(error)
            return ""

        for name, limit in limits.items():
            if limit is not None:
                sign = -1 if name == "high" else 1
                inside, outside = (limit + unit, limit) if name == "above" else (limit, limit - sign * unit)
                assert out_of_range.match(attempt(outside)), (field.name, limit, attempt(outside))
                assert not out_of_range.match(attempt(inside)), (field.name, limit)
        if unit == 1 and limits["high"] is None:  # arrays of default integers hold no more
            assert "at most 2147483647" in attempt(2**31)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_are_taken_also_as_lists_integers_and_numpy_numbers(cls):
    """An equal object comes back, which can be hashed; unknown fields are a TypeError, as of any class."""
    plain = read(cls, required(cls))
    assert hash(plain) == hash(read(cls, required(cls)))
    for name, hint, field in values_of(cls) if issubclass(cls, Settings) else ():
        value = getattr(plain, name)
        forms = [list(value)] if isinstance(value, tuple) else []
        forms += [int(value)] if hint is float and value.is_integer() else []
        forms += [np.asarray(value)[()]] if hint in (int, float) else []
        for form in (value, *forms):
            again = cls(**required(cls) | {name: form})
            assert again == plain
            assert type(getattr(again, name)) is type(value)
        assert is_idle(plain, field) is None
    for field in dataclasses.fields(cls):
        if (kinds := field.metadata.get("kinds")) is not None:
            if isinstance(field.default, Settings):
                named = cls(**required(cls) | {field.name: kinds.name_of(type(field.default))})
                assert getattr(named, field.name) == type(field.default)()
            with pytest.raises(ValueError, match=f"{kinds.what}='no_such'"):
                read(cls, required(cls) | {field.name: "no_such"})
    with pytest.raises(TypeError, match="no_such_setting"):
        cls(**required(cls), no_such_setting=1)


def test_every_number_has_a_lower_bound():
    """But for both ends of an interval."""
    numbers = [
        (field.name, field.metadata.get("low"), field.metadata.get("above"))
        for cls in CLASSES
        for field in dataclasses.fields(cls)
        if {int, float} & {hints_of(cls)[field.name], *typing.get_args(hints_of(cls)[field.name])}
    ]
    assert len(numbers) > 80
    assert {name for name, low, above in numbers if low is None and above is None} == {"domain"}
