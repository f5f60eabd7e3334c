"""How a field of the settings declares its range, and the other settings that it needs."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from kaem_jax.settings import registry

__all__ = ["bounded", "only_for", "registered"]


def bounded(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    only: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """A field with a range, low <= value <= high or value > above, which applies to each entry of a tuple.

    `only` names another field of the group, and the values of that field with which this one is used at all.
    """
    return field(default=default, metadata={"low": low, "high": high, "above": above, "only": only})


def only_for(default: Any, only: Mapping[str, tuple[str, ...]]) -> Any:
    """A field without a range that is used with some values of another field; see `bounded`."""
    return bounded(default, only=only)


def registered(default: str, names: registry.Registry) -> Any:
    """A field whose value is the name of an entry of `names`."""
    return field(default=default, metadata={"registry": names})
