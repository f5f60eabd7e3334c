"""Configurations as nested dictionaries, as files hold them."""

from typing import Any

__all__ = ["flatten", "with_defaults"]


def with_defaults(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration, with defaults for fields that did not exist yet when it was written."""
    filled = defaults | saved
    return {
        name: with_defaults(value, defaults[name]) if isinstance(value, dict) and name in defaults else value
        for name, value in filled.items()
    }


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One flat dictionary for nested ones, with names joined by dots; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
