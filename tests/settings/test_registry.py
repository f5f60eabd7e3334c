"""Kinds by name: users add their own, and nobody else's is replaced."""

import pytest

from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.settings import Registry
from kaem_jax.settings.registry import BASES


class Mine(Basis):
    """A basis of a user."""


def fresh():
    return Registry("basis", "kaem_jax.kan.bases:Basis", b_spline=BSpline)


def test_a_users_class_is_found_by_its_name_and_by_its_address(refuses):
    kinds = fresh()
    assert kinds.get(f"{__name__}:Mine") is Mine
    assert kinds.name_of(Mine) == f"{__name__}:Mine"
    for _ in range(2):  # a notebook's cell may run twice, and makes a class of the same name each time
        mine = type("Mine", (Basis,), {"__module__": __name__, "__qualname__": "Mine"})
        kinds.register("mine", mine)
        assert kinds.get("mine") is mine
    assert (kinds.name_of(Mine), list(kinds)) == ("mine", ["b_spline", "mine"])
    assert BASES.get("b_spline")(degree=2) == BSpline(degree=2)
    with refuses(ValueError, "'mine' exists already"):
        kinds.register("mine", BSpline)
    with refuses(ValueError, "'my basis' must be an identifier"):
        kinds.register("my basis", Mine)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("b_splin", ["basis='b_splin'", "did you mean 'b_spline'?", "'module:Class'"]),
        ("zzz", ["allowed: b_spline"]),
        ("nowhere:Basis", ["cannot be imported", "No module named 'nowhere'"]),
        (f"{__name__}:Absent", ["cannot be imported"]),
        ("os:getcwd", ["is not a subclass of kaem_jax.kan.bases:Basis"]),
        (["b_spline"], ["basis=['b_spline']"]),
    ],
    ids=str,
)
def test_what_is_no_kind_is_refused(refuses, name, parts):
    with refuses(ValueError, *parts):
        fresh().get(name)
