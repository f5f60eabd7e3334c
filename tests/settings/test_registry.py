"""Kinds by name: users add their own, and nobody else's is replaced."""

import pytest

from kaem_jax.kan.bases import Basis, BSpline
from kaem_jax.settings import Registry
from kaem_jax.settings.registry import BASES
from tests.settings.kinds import KINDS


class Mine(Basis):
    """A basis of a user."""


def fresh():
    return Registry("basis", "kaem_jax.kan.bases:Basis", b_spline=BSpline)


@pytest.mark.parametrize(("registry", "name"), KINDS, ids=lambda value: getattr(value, "what", value))
def test_every_kind_has_one_name(registry, name):
    assert registry.name_of(registry.get(name)) == name


def test_a_users_class_is_found_by_its_name_and_by_its_address(refuses):
    kinds = fresh()
    assert kinds.get(f"{__name__}:Mine") is Mine
    assert kinds.name_of(Mine) == f"{__name__}:Mine"
    kinds.register("mine", Mine)
    kinds.register("mine", Mine)  # a notebook's cell may run twice
    assert (kinds.get("mine"), kinds.name_of(Mine), list(kinds)) == (Mine, "mine", ["b_spline", "mine"])
    with refuses(ValueError, "'mine' exists already"):
        kinds.register("mine", BSpline)
    with refuses(ValueError, "'my basis' must be an identifier"):
        kinds.register("my basis", Mine)


def test_what_is_no_kind_is_refused(refuses):
    for name, parts in (
        ("b_splin", ["basis='b_splin'", "did you mean 'b_spline'?", "'module:Class'"]),
        ("zzz", ["allowed: b_spline"]),
        ("nowhere:Basis", ["cannot be imported", "No module named 'nowhere'"]),
        (f"{__name__}:Absent", ["cannot be imported"]),
        ("os:getcwd", ["is not a subclass of kaem_jax.kan.bases:Basis"]),
        (["b_spline"], ["basis=['b_spline']"]),
    ):
        with refuses(ValueError, *parts):
            fresh().get(name)
    assert BASES.make("b_spline", degree=2) == BSpline(degree=2)
