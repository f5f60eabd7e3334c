"""Every class of settings refuses values of a wrong type, outside a range, or no word of its list, by field and value.

It takes what is harmless: a list for a tuple, an integer for a float, a NumPy number, the name of a kind.
"""

import dataclasses
import math
import types
import typing

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import kaem_jax as kaem
from kaem_jax.inference.samplers import ProposalChains
from kaem_jax.settings import Registry, Settings, registry
from kaem_jax.settings.fields import hints_of
from kaem_jax.training.optimizer import Group
from kaem_jax.training.step import GridUpdate

SETTINGS = hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
KINDS = [value for value in vars(registry).values() if isinstance(value, Registry)]
OTHERS = (Group, GridUpdate, ProposalChains, kaem.Loss, kaem.Optimizer, kaem.Penalties)
CLASSES = sorted(
    {cls for kinds in KINDS for name in kinds if issubclass(cls := kinds.get(name), Settings)} | set(OTHERS),
    key=lambda cls: cls.__name__,
)
REQUIRED = {"num_latents": 2, "centred": kaem.ProductPrior(num_latents=2), "proposal": kaem.PriorProposal()}
TEXT = st.text("abcdefgh_", min_size=1, max_size=12)


def made(cls, **given):
    fields = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in REQUIRED.items() if name in fields} | given)


def wrong_type(hint):
    """Values that are not of the annotated type, None where every value is taken."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None  # objects of a user's own
    if origin is typing.Literal:
        return st.one_of(TEXT.filter(lambda word: word not in args), st.integers(), st.none(), st.booleans())
    if origin is tuple:
        entry = wrong_type(args[0]).filter(lambda value: not isinstance(value, list | tuple))
        size = 2 if args[-1] is Ellipsis else len(args)
        return st.one_of(TEXT, st.none(), st.lists(entry, min_size=size, max_size=size))
    nowhere = [st.none(), st.lists(st.integers(), max_size=2), st.just({})]
    if hint is bool:
        return st.one_of(*nowhere, TEXT, st.integers(), st.floats())
    if hint is int:
        return st.one_of(*nowhere, TEXT, st.booleans(), st.floats())
    if hint is float:
        return st.one_of(*nowhere, TEXT, st.booleans(), st.sampled_from([math.nan, math.inf, -math.inf]))
    return None


def outside(hint, metadata):
    """Numbers of the right type beyond the declared ends; None where there is no end."""
    is_tuple = typing.get_origin(hint) is tuple
    number = typing.get_args(hint)[0] if is_tuple else hint
    low, high, above = (metadata.get(name) for name in ("low", "high", "above"))
    if number not in (int, float) or low is high is above is None:
        return None
    gaps = st.integers(1, 2**30) if number is int else st.floats(1e-3, 1e30)
    beyond = []
    beyond += [] if low is None else [gaps.map(lambda gap: low - gap)]
    beyond += [] if high is None else [gaps.map(lambda gap: high + gap)]
    beyond += [] if above is None else [gaps.map(lambda gap: above - gap), st.just(number(above))]
    return st.one_of(beyond).map(lambda value: (value,) if is_tuple else value)


def fields_of(cls):
    """(name, annotation, field) of the fields that are values, not objects."""
    return [
        (field.name, hints_of(cls)[field.name], field)
        for field in dataclasses.fields(cls)
        if field.init and field.metadata.get("kinds") is None and not isinstance(field.default, Settings)
    ]


CASES = [(cls, *field) for cls in CLASSES for field in fields_of(cls)]


def named(case):
    return f"{case[0].__name__}.{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_what_a_field_cannot_be_is_refused_by_name_and_value(case):
    cls, name, hint, field = case
    bad = [strategy for strategy in (wrong_type(hint), outside(hint, field.metadata)) if strategy is not None]
    if not bad:
        pytest.skip("takes every value of its type")

    @hypothesis.given(st.one_of(bad))
    @SETTINGS
    def check(value):
        with pytest.raises(ValueError, match=f"^{name}=") as caught:
            made(cls, **{name: value})
        message = str(caught.value)
        assert "\n" not in message
        assert any(repr(shown) in message for shown in (value, *(value if isinstance(value, list | tuple) else ())))

    check()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_are_taken_also_as_lists_integers_and_numpy_numbers(cls):
    """And an equal object comes back, which can be hashed; unknown fields are a TypeError, as of any class."""
    plain = made(cls)
    assert hash(plain) == hash(made(cls))
    for name, hint, _ in fields_of(cls):
        value = getattr(plain, name)
        forms = [value]
        if isinstance(value, tuple):
            forms.append(list(value))
        if hint is float and value.is_integer():
            forms.append(int(value))
        if hint in (int, float):
            forms.append(np.asarray(value)[()])
        for form in forms:
            again = made(cls, **{name: form})
            assert again == plain
            assert type(getattr(again, name)) is type(value)
    with pytest.raises(TypeError, match="no_such_setting"):
        made(cls, no_such_setting=1)


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds.what)
def test_the_name_of_a_kind_stands_for_its_defaults_and_no_other_word_does(kinds):
    for cls in CLASSES:
        for field in dataclasses.fields(cls):
            if field.metadata.get("kinds") is not kinds:
                continue
            if isinstance(field.default, Settings | kaem.mcmc.Kernel):
                name = kinds.name_of(type(field.default))
                assert getattr(made(cls, **{field.name: name}), field.name) == type(field.default)()
            with pytest.raises(ValueError, match=f"{kinds.what}='no_such'"):
                made(cls, **{field.name: "no_such"})
