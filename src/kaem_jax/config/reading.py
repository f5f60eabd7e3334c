"""Dictionaries and command lines to dataclasses: names, types and ranges, each refused in one sentence."""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["EXIT_REFUSED", "ConfigError", "build", "check_overrides"]

EXIT_REFUSED = 2  # of every command, for flags, configurations, data and folders that it refuses


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, what was given and what is allowed."""


def check_overrides(arguments: Sequence[str], root: type) -> None:
    """Checks the names in `--config.KEY=VALUE` arguments, and that the file after `--config` exists.

    Args:
      arguments: of the command line, without the program's name.
      root: the dataclass whose fields the names are.

    Raises:
      ConfigError: a name is no field (the nearest one is suggested), or there is no such file.
    """
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name.startswith("config."):
            group: Any = root
            for depth, part in enumerate(parts := name.split(".")[1:]):
                if not dataclasses.is_dataclass(group):
                    raise ConfigError(f"{'.'.join(parts[:depth])} is a single value and has no field {part!r}")
                _check_name(group, part, "".join(f"{p}." for p in parts[:depth]))
                group = typing.get_type_hints(group)[part]
        elif argument.startswith("-") and name == "config":
            path = value if equals else next(iter(arguments[position + 1 :]), "")
            if not os.path.isfile(path.partition(":")[0]):
                raise ConfigError(f"--config {path!r} is not a file; give an experiment, such as experiments/digits.py")


def _check_name(cls: Any, name: str, prefix: str) -> None:
    fields = [f.name for f in dataclasses.fields(cls)]
    if name not in fields:
        near = difflib.get_close_matches(str(name), fields, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed: {', '.join(fields)}"
        raise ConfigError(f"{prefix}{name} is not a field of the config; {hint}")


def build(cls: Any, values: Any, prefix: str) -> Any:
    """Builds dataclass `cls` from a mapping, checking names, types and ranges on the way."""
    where = prefix.rstrip(".") or "config"
    if not hasattr(values, "keys"):
        raise ConfigError(f"{where}={values!r} must be a group of fields")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        _check_name(cls, name, prefix)
    hints = typing.get_type_hints(cls)
    built = {}
    for name, spec in fields.items():
        if name not in values:
            raise ConfigError(f"{prefix}{name} is missing; start from the defaults of kaem_jax.config.default_dict()")
        if dataclasses.is_dataclass(hints[name]):
            built[name] = build(hints[name], values[name], f"{prefix}{name}.")
        else:
            built[name] = _convert(hints[name], values[name], prefix + name)
            _check_range(spec.metadata, built[name], prefix + name)
    return cls(**built)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the annotated type; an int may stand for a float and a list for a tuple, nothing else is coerced."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and all(typing.get_origin(a) is Literal for a in args):
        origin, args = Literal, tuple(choice for a in args for choice in typing.get_args(a))
    if origin is Literal:
        if value not in args:
            near = difflib.get_close_matches(str(value), args, n=1)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{name}={value!r} is not allowed; allowed: {', '.join(args)}{hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}={value!r} must be a tuple")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise ConfigError(f"{name}={value!r} must have {len(args)} entries")
        return tuple(_convert(arg, entry, name) for arg, entry in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}={value!r} must be of type {hint.__name__}")
    return value


def _check_range(metadata: Mapping[str, Any], value: Any, name: str) -> None:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    for entry in value if isinstance(value, tuple) else (value,):
        if isinstance(entry, float) and not abs(entry) < float("inf"):
            raise ConfigError(f"{name}={value!r} must be finite")
        if low is not None and entry < low:
            raise ConfigError(f"{name}={value!r} must be at least {low}")
        if high is not None and entry > high:
            raise ConfigError(f"{name}={value!r} must be at most {high}")
        if above is not None and not entry > above:
            raise ConfigError(f"{name}={value!r} must be above {above}")
