"""Turns dictionaries and command lines into dataclasses; refuses wrong names, types and ranges in one sentence.

A group of settings is a dataclass, or a union of dataclasses that a tag distinguishes: their first field, whose
type is a Literal of one string. In dictionaries, where `--config.KEY=VALUE` needs every name to exist, a union is flat:
its tag and the fields of all its members. A field of another member is refused unless it has its default.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["EXIT_REFUSED", "ConfigError", "build", "check_overrides", "defaults", "settle"]

_MAX_INTEGER = 2**31 - 1  # what arrays of default integers hold

EXIT_REFUSED = 2  # exit code of every command for flags, configurations, data and folders that it refuses


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, what was given and what is allowed."""


def members(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a group's annotation, one or several; empty for a single value."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(options) if all(dataclasses.is_dataclass(option) for option in options) else ()


def _tag(options: Sequence[Any]) -> str | None:
    """The field that distinguishes the members of a union, None for a plain group."""
    return dataclasses.fields(options[0])[0].name if len(options) > 1 else None


def _tag_value(member: Any) -> Any:
    return dataclasses.fields(member)[0].default


def _fields(options: Sequence[Any]) -> dict[str, Any]:
    """All fields of the members by name; a name that several share has one type and default."""
    return {f.name: f for option in reversed(options) for f in dataclasses.fields(option)}


def _default(field: Any) -> Any:
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def defaults(root: Any) -> dict[str, Any]:
    """All defaults of a configuration as a nested dictionary, the fields of all members of its unions included."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(type(root))
    for field in dataclasses.fields(root):
        options = members(hints[field.name])
        value = getattr(root, field.name)
        if len(options) > 1:
            shared = {name: _default(f) for name, f in _fields(options).items()}
            values[field.name] = dataclasses.asdict(value) | {k: v for k, v in shared.items() if not hasattr(value, k)}
        elif options:
            values[field.name] = defaults(value)
        else:
            values[field.name] = value
    return values


def check_overrides(arguments: Sequence[str], root: type) -> set[str]:
    """Checks the names in `--config.KEY=VALUE` arguments.

    Args:
      arguments: the command line without the program's name.
      root: the dataclass whose fields the names are.

    Returns:
      The names that are overridden, such as "posterior.num_steps".

    Raises:
      ConfigError: a name is not a field; the message suggests the nearest one.
    """
    found = set()
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not (argument.startswith("-") and name.startswith("config.")):
            continue
        group: Any = (root,)
        for depth, part in enumerate(parts := name.split(".")[1:]):
            if not group:
                raise ConfigError(f"{'.'.join(parts[:depth])} is a single value and has no field {part!r}")
            _check_name(group, part, "".join(f"{p}." for p in parts[:depth]))
            owner = next(option for option in group if part in {f.name for f in dataclasses.fields(option)})
            group = members(typing.get_type_hints(owner)[part])
        found.add(".".join(parts))
    return found


def settle(values: Mapping[str, Any], overridden: Collection[str], root: type, prefix: str = "") -> dict[str, Any]:
    """What an experiment's dictionary means after `overridden` names were set from the command line.

    If a choice was overridden, such as `posterior.kind`, fields that the experiment had set for its own choice return
    to their defaults. A field that was itself overridden but belongs to another choice stays, and `build` refuses it.

    Args:
      values: the nested dictionary, overrides included.
      overridden: as `check_overrides` returns it.
      root: the dataclass of `values`.
    """
    hints = typing.get_type_hints(root)
    settled = dict(values)
    for name, group in values.items():
        options = members(hints[name]) if name in hints else ()
        if not options or not hasattr(group, "keys"):
            continue
        if len(options) == 1:
            group = settle(group, overridden, options[0], f"{prefix}{name}.")
        settled[name] = dict(group)
        for idle in _idle_fields(options, group):
            chooser = f"{prefix}{name}.{idle.chooser}"
            if chooser in overridden and f"{prefix}{name}.{idle.name}" not in overridden:
                settled[name][idle.name] = _default(idle.field)
    return settled


class _Idle(NamedTuple):
    """A field that the choices of its group do not use: it needs `chooser` to be one of `allowed`."""

    name: str
    field: Any
    chooser: str
    allowed: tuple[Any, ...]


def _idle_fields(options: Sequence[Any], group: Mapping[str, Any]) -> Iterator[_Idle]:
    tag = _tag(options)
    for name, spec in _fields(options).items():
        if name not in group:
            continue
        if tag is not None:
            owners = tuple(
                _tag_value(option) for option in options if name in {f.name for f in dataclasses.fields(option)}
            )
            if group.get(tag) not in owners and group.get(tag) in {_tag_value(option) for option in options}:
                yield _Idle(name, spec, tag, owners)
                continue
        for chooser, allowed in (spec.metadata.get("only") or {}).items():
            if chooser in group and group[chooser] not in allowed:
                yield _Idle(name, spec, chooser, allowed)


def _check_name(options: Sequence[Any], name: str, prefix: str) -> None:
    fields = list(_fields(options))
    if name not in fields:
        near = difflib.get_close_matches(str(name), fields, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed: {', '.join(fields)}"
        raise ConfigError(f"{prefix}{name} is not a field of the config; {hint}")


def build(options: Sequence[Any], values: Any, prefix: str, overridden: Collection[str] = ()) -> Any:
    """Builds one of the dataclasses `options` from a mapping, checking names, types and ranges on the way."""
    where = prefix.rstrip(".") or "config"
    if not hasattr(values, "keys"):
        raise ConfigError(f"{where}={values!r} must be a group of fields")
    for name in values:
        _check_name(options, name, prefix)
    cls = _member(options, values, prefix)
    hints = typing.get_type_hints(cls)
    built = {}
    for spec in dataclasses.fields(cls):
        name = spec.name
        if name not in values:
            raise ConfigError(f"{prefix}{name} is missing; start from the defaults of kaem_jax.settings.default_dict()")
        if groups := members(hints[name]):
            built[name] = build(groups, values[name], f"{prefix}{name}.", overridden)
        else:
            built[name] = _convert(hints[name], values[name], prefix + name, spec.metadata)
            _check_range(spec.metadata, built[name], prefix + name)
    for name, spec, chooser, allowed in _idle_fields(options, values):
        given = values[name]
        same = (tuple(given) if isinstance(given, list) else given) == _default(spec)
        if not same or prefix + name in overridden:
            needed = " or ".join(repr(value) for value in allowed)
            raise ConfigError(
                f"{prefix}{name}={given!r} needs {prefix}{chooser}={needed}; with {values[chooser]!r} it would be "
                f"ignored: leave it at {_default(spec)!r}"
            )
    return cls(**built)


def _member(options: Sequence[Any], values: Mapping[str, Any], prefix: str) -> Any:
    """The member of a union that the tag in `values` names."""
    tag = _tag(options)
    if tag is None:
        return options[0]
    if tag not in values:
        raise ConfigError(f"{prefix}{tag} is missing; start from the defaults of kaem_jax.settings.default_dict()")
    by_tag = {_tag_value(option): option for option in options}
    if values[tag] not in list(by_tag):
        raise ConfigError(_not_allowed(prefix + tag, values[tag], sorted(by_tag)))
    return by_tag[values[tag]]


def _not_allowed(name: str, value: Any, allowed: Collection[str]) -> str:
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name}={value!r} is not allowed; allowed: {', '.join(allowed)}{hint}"


def _convert(hint: Any, value: Any, name: str, metadata: Mapping[str, Any]) -> Any:
    """`value` as the annotated type; an int may replace a float, and a list a tuple; nothing else is converted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and all(typing.get_origin(a) is Literal for a in args):
        origin, args = Literal, tuple(choice for a in args for choice in typing.get_args(a))
    if origin is Literal:
        if value not in args:
            raise ConfigError(_not_allowed(name, value, args))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}={value!r} must be a tuple, such as \"--config.{name}=(1,2)\" or \"('a','b')\"")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise ConfigError(f"{name}={value!r} must have {len(args)} entries")
        return tuple(_convert(arg, entry, name, metadata) for arg, entry in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}={value!r} must be of type {hint.__name__}")
    if (registry := metadata.get("registry")) is not None and (problem := registry.explain(value)) is not None:
        raise ConfigError(f"{name}={value!r} is not known; {problem}")
    return value


def _check_range(metadata: Mapping[str, Any], value: Any, name: str) -> None:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    for entry in value if isinstance(value, tuple) else (value,):
        if high is None and type(entry) is int:
            high = _MAX_INTEGER
        if isinstance(entry, float) and not abs(entry) < float("inf"):
            raise ConfigError(f"{name}={value!r} must be finite")
        if low is not None and entry < low:
            raise ConfigError(f"{name}={value!r} must be at least {low}")
        if high is not None and entry > high:
            raise ConfigError(f"{name}={value!r} must be at most {high}")
        if above is not None and not entry > above:
            raise ConfigError(f"{name}={value!r} must be above {above}")
