"""How a class declares its settings, and how it checks the values that it is given."""

import ast
import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from kaem_jax.settings.registry import Registry, near_name

_MAX_INTEGER = 2**31 - 1  # what arrays of default integers hold


class Raw(str):
    """A value from the command line; the type of its field decides how it is parsed."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    kinds: Registry | None = None,
    needs: Mapping[str, Any] | None = None,
) -> Any:
    """A dataclass field with constraints that its annotation cannot express.

    Args:
      default: its default; a field without one must be given.
      low, high, above: low <= value <= high, value > above; for every entry of a tuple.
      kinds: the field is an object of one of these kinds, given as the object, the name of a kind, or a mapping.
      needs: maps names of other fields to the values, or a test of them, for which this field has an effect. Otherwise
        this field must keep its default.
    """
    metadata = {"low": low, "high": high, "above": above, "kinds": kinds, "needs": needs or {}}
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """Base of frozen dataclasses whose fields are settings: checks types and ranges, and makes harmless conversions.

    A float may be given as an integer, a tuple as a list, a Python number as NumPy's, an object by the name of its
    kind.

    Raises:
      ValueError: a field has a wrong type or value; the message begins with "field=value".
    """

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        fields: list[Any] = [field for field in dataclasses.fields(self) if field.init]  # type: ignore[arg-type]
        for field in fields:
            value = getattr(self, field.name)
            kinds = field.metadata.get("kinds")
            if kinds is None:
                new = _convert(hints[field.name], value, field.name)
                _check_range(field.metadata, new, field.name)
            else:
                new = kinds.get(str(value))() if isinstance(value, str) else value
            if new is not value:
                object.__setattr__(self, field.name, new)
        for field in fields:
            if (idle := is_idle(self, field)) is not None:
                raise ValueError(
                    f"{field.name}={getattr(self, field.name)!r} does nothing with {idle}={getattr(self, idle)!r}: "
                    f"leave it at {field.default!r}"
                )


hints_of: Any = functools.cache(typing.get_type_hints)
"""The annotations of a class, evaluated once."""


def is_idle(values: Any, field: Any) -> str | None:
    """The name of the field whose value makes `field`, which is not at its default, useless; else None."""
    if getattr(values, field.name) == field.default:
        return None
    for name, allowed in field.metadata.get("needs", {}).items():
        other = getattr(values, name)
        if not (allowed(other) if callable(allowed) else other in allowed):
            return name
    return None


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if (value is None or (isinstance(value, Raw) and value == "None")) and type(None) in args:
            return None
        hint = next((arg for arg in args if typing.get_origin(arg) in (Literal, tuple) or arg in _PLAIN), None)
        return value if hint is None else _convert(hint, value, name)
    if origin is Literal:
        if value not in args:
            shown = str(value) if isinstance(value, Raw) else value
            raise ValueError(f"{name}={shown!r} is not known; {near_name(value, args)}")
        return str(value)
    if origin is tuple:
        return _convert_tuple(args, _parsed(value, name), name)
    if hint not in _PLAIN:
        return value
    value = str(value) if hint is str and isinstance(value, Raw) else _parsed(value, name)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be finite")
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    raise ValueError(f"{name}={value!r} must be of type {hint.__name__}")


_PLAIN = (bool, int, float, str)


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, Raw):
        return value
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return str(value)


def _convert_tuple(args: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if args[-1] is Ellipsis and isinstance(value, int | float):
        value = (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}={value!r} must be a tuple, such as (1, 2) or ('a', 'b')")
    if args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise ValueError(f"{name}={value!r} must have {len(args)} entries")
    return tuple(_convert(arg, entry, name) for arg, entry in zip(args, value, strict=True))


def _check_range(metadata: Mapping[str, Any], value: Any, name: str) -> None:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    for entry in value if isinstance(value, tuple) else (value,):
        if not isinstance(entry, int | float):
            continue
        largest = _MAX_INTEGER if high is None and isinstance(entry, int) else high
        if low is not None and entry < low:
            raise ValueError(f"{name}={value!r} must be at least {low}")
        if largest is not None and entry > largest:
            raise ValueError(f"{name}={value!r} must be at most {largest}")
        if above is not None and not entry > above:
            raise ValueError(f"{name}={value!r} must be above {above}")
