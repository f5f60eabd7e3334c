"""Turns nested dictionaries and command lines into objects, and objects into dictionaries."""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from kaem_jax.errors import ConfigError
from kaem_jax.settings.fields import Raw, hints_of
from kaem_jax.settings.registry import Registry, near_name


def read(cls: Any, values: Any, path: str = "") -> Any:
    """Builds an object of the dataclass `cls` from a mapping; missing fields have their defaults.

    Args:
      cls: a frozen dataclass.
      values: a mapping; the entry of a field with kinds is a mapping with `kind`, the name of a kind, or an object.
      path: prefix of the names in messages, such as "prior.".

    Raises:
      ConfigError: a name is unknown or missing, or an object refuses a value; the message names the field.
    """
    fields = _fields(cls)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path.rstrip('.') or 'config'}={values!r} must be a group of fields")
    for name in values:
        if name not in fields:
            raise ConfigError(f"{path}{name} is not a setting here; {near_name(name, fields)}")
    built = {name: _read_field(cls, fields[name], value, f"{path}{name}") for name, value in values.items()}
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path}{name} is missing: it has no default")
    try:
        return cls(**built)
    except ValueError as error:
        named = path if not path or re.match(r"[\w.]+=", str(error)) else f"{path.rstrip('.')}: "
        raise ConfigError(f"{named}{error}") from None


def read_kind(kinds: Registry, values: Any, path: str, default: Any = dataclasses.MISSING) -> Any:
    """An object of one of `kinds`, from its name, an object, or a mapping with `kind` and fields."""
    if isinstance(values, Mapping):
        fields = {name: value for name, value in values.items() if name != "kind"}
        kind = values.get("kind", default if default is dataclasses.MISSING else type(default))
        if kind is dataclasses.MISSING or kind is type(None):
            raise ConfigError(f"{path}.kind is missing; allowed: {', '.join(kinds)}")
    elif isinstance(values, str):
        kind, fields = values, {}
    else:
        return values
    return read(kind if isinstance(kind, type) else _class(kinds, kind, path), fields, f"{path}.")


def to_dict(value: Any, kinds: Registry | None = None, changed: bool = False) -> Any:
    """The nested dictionary from which `read` makes an equal object; tuples are lists, as in JSON.

    Parts that are neither dataclasses nor plain values become their names.

    Args:
      value: a dataclass, or a value of a field.
      kinds: the registry of `value`'s class, if any; the name of its kind is then included.
      changed: leave out fields that have their defaults.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {} if kinds is None else {"kind": kinds.name_of(type(value))}
        for name, field in _fields(value).items():
            if not (changed and getattr(value, name) == field.default):
                found[name] = to_dict(getattr(value, name), field.metadata.get("kinds"), changed)
        return found
    if isinstance(value, tuple | list):
        return [to_dict(entry, changed=changed) for entry in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if kinds is not None:
        return {"kind": kinds.name_of(type(value))}
    part = value if hasattr(value, "__qualname__") else type(value)
    return f"{part.__module__}:{part.__qualname__}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One flat dictionary for nested ones, with names joined by dots; entries of a list of groups have numbers."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            value = {str(i): entry for i, entry in enumerate(value)}
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def apply_overrides(cls: Any, values: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """An experiment's dictionary `values` of `cls` with `--config.KEY=VALUE` arguments applied.

    An overridden choice, such as `posterior.kind`, drops settings that no longer apply.

    Raises:
      ConfigError: an argument is not of this form, or sets a field of a single value.
    """
    overrides: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not (argument.startswith("--") and name.startswith("config.")):
            raise ConfigError(f"{argument!r} is not an option; settings are given as --config.KEY=VALUE")
        if not equals:
            raise ConfigError(f"{argument} has no value: give {argument}=VALUE")
        group, parts = overrides, name.split(".")[1:]
        for part in parts[:-1]:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise ConfigError(f"{argument}: {part} is given as a whole, too")
        group[parts[-1]] = Raw(value)
    return _merged(cls, values, overrides)


def _merged(cls: Any, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Applies overrides to the values, and drops values that an overridden choice makes useless."""
    fields = _fields(cls)
    merged: dict[str, Any] = dict(values)
    for name, override in overrides.items():
        before, field = values.get(name), fields.get(name)
        if field is not None and (of_entry := _class_of_entries(cls, field)) and isinstance(override, Mapping):
            merged[name] = _merged_entries(of_entry, name, list(before or ()), override)
            continue
        inner = None if field is None else _class_of_group(cls, field, before, override)
        if isinstance(override, Mapping) and inner is not None:
            before = {"kind": before} if isinstance(before, str) else dict(before or {})
            if override.get("kind", before.get("kind")) != before.get("kind"):
                before = {key: value for key, value in before.items() if key in _fields(inner)}
            merged[name] = _merged(inner, before, override)
        elif isinstance(override, Mapping) and field is not None:
            raise ConfigError(f"{name} is a single value and has no field {next(iter(override))!r}")
        else:
            merged[name] = override
    for name, field in fields.items():
        for chooser, allowed in field.metadata.get("needs", {}).items():
            if name in merged and name not in overrides and chooser in overrides:
                value = overrides[chooser]
                if not (value not in ("0", "", "False") if callable(allowed) else value in allowed):
                    merged.pop(name, None)
    return merged


def _merged_entries(of_entry: Any, name: str, entries: list[Any], overrides: Mapping[str, Any]) -> list[Any]:
    """Applies overrides to a list of groups, whose names are numbers from 0."""
    for number, override in overrides.items():
        if not (number.isdecimal() and int(number) < len(entries) and isinstance(override, Mapping)):
            raise ConfigError(f"{name}.{number} is not one of the {len(entries)} entries of {name}, {name}.0 to ...")
        entries[int(number)] = _merged(of_entry, entries[int(number)], override)
    return entries


def _class_of_entries(cls: Any, field: Any) -> Any:
    """The class of the groups in a tuple field, None for other fields."""
    hint = hints_of(cls)[field.name]
    args = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
    return args[0] if args and dataclasses.is_dataclass(args[0]) else None


def _class_of_group(cls: Any, field: Any, before: Any, override: Any) -> Any:
    kinds = field.metadata.get("kinds")
    if kinds is None:
        hint = hints_of(cls)[field.name]
        return hint if dataclasses.is_dataclass(hint) else None
    kind = override.get("kind") if isinstance(override, Mapping) else None
    kind = kind or (before.get("kind") if isinstance(before, Mapping) else before)
    if isinstance(kind, str):
        return _class(kinds, str(kind), field.name)
    return type(field.default) if field.default not in (dataclasses.MISSING, None) else None


def _class(kinds: Registry, kind: Any, path: str) -> Any:
    try:
        return kinds.get(str(kind) if isinstance(kind, Raw) else kind)
    except ValueError as error:
        raise ConfigError(f"{path}.kind: {error}") from None


def _fields(cls: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{cls!r} has no settings: it must be a frozen dataclass")
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _read_field(cls: Any, field: Any, value: Any, path: str) -> Any:
    kinds = field.metadata.get("kinds")
    if kinds is not None:
        if value is None or (isinstance(value, Raw) and value == "None"):
            return None
        return read_kind(kinds, value, path, field.default)
    hint = hints_of(cls)[field.name]
    if (of_entry := _class_of_entries(cls, field)) is not None:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}={value!r} must be a tuple of groups of fields")
        return tuple(
            entry if isinstance(entry, of_entry) else read(of_entry, entry, f"{path}.{i}.")
            for i, entry in enumerate(value)
        )
    is_group = isinstance(hint, type) and dataclasses.is_dataclass(hint)
    return read(hint, value, f"{path}.") if is_group and not isinstance(value, hint) else value
