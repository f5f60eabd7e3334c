"""Writes settings.md from the classes whose fields are the settings.

python docs/write_settings.py
"""

import dataclasses
import inspect
import pathlib
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.settings import Registry, to_dict
from kaem_jax.settings.fields import hints_of
from kaem_jax.settings.registry import BASES, ENCODERS, KERNELS

PAGE = pathlib.Path(__file__).parent / "settings.md"

_HEAD = """# All settings

`--config.GROUP.NAME=VALUE` sets one, such as `--config.optimizer.prior.learning_rate=1e-3`. In Python the same names
are arguments of the same classes, with the same defaults. A group with a `kind` is an object of one of several classes;
`--config.GROUP.kind=KIND` takes another and keeps the fields that both have, `--config.GROUP=KIND` takes it with its
defaults (not a prior, whose `num_latents` has none), and `--config.GROUP.kind=package.module:Class` takes your own.

This page is written from the classes by `python docs/write_settings.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _section("--config.NAME=VALUE", Experiment, None)]
    seen: set[type] = set()
    for field in dataclasses.fields(Experiment):
        kinds = field.metadata.get("kinds")
        hint = hints_of(Experiment)[field.name]
        entry = next(iter(typing.get_args(hint)), None) if typing.get_origin(hint) is tuple else None
        if dataclasses.is_dataclass(entry):
            parts += [f"## {field.name}\n", _section(f"{field.name}.0, {field.name}.1, ...", entry, None, seen)]
            parts += [f"`{field.name}.0.{name}` has the settings of `{name}`.\n" for name, _ in _groups(entry)]
        elif kinds is not None:
            parts.append(f"## {field.name}\n")
            parts += [_section(f"{field.name}.kind = {kind}", kinds.get(kind), kinds, seen) for kind in kinds]
        elif dataclasses.is_dataclass(hint):
            parts.append(f"## {field.name}\n")
            parts.append(_section(field.name, hint, None, seen))
            groups: dict[Any, list[str]] = {}
            for name, group in _groups(hint):
                groups.setdefault(group, []).append(f"{field.name}.{name}")
            parts += [_section("`, `".join(names), group, None, seen) for group, names in groups.items()]
            parts += [
                _section(f"{field.name}.{name}.kind = {kind}", inner.get(kind), inner, seen)
                for name, inner in _choices(hint)
                for kind in inner
            ]
    parts += [
        "## encoder, basis, kernel\n",
        "In formulas of bases, u runs from 0 to N over the N intervals of the grid.\n",
    ]
    others = (ENCODERS, BASES, KERNELS)
    parts += [_section(f"kind = {kind}", kinds.get(kind), kinds, seen) for kinds in others for kind in kinds]
    return "\n".join(part for part in parts if part)


def _groups(cls: Any) -> Iterator[tuple[str, Any]]:
    for name, hint in hints_of(cls).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield name, hint


def _choices(cls: Any) -> Iterator[tuple[str, Registry]]:
    for field in dataclasses.fields(cls):
        if (kinds := field.metadata.get("kinds")) is not None:
            yield field.name, kinds


def _section(title: str, cls: Any, kinds: Registry | None, seen: set[type] | None = None) -> str:
    """A heading, what the class is, and a table of its fields."""
    if seen is not None and cls in seen:
        return ""
    if seen is not None:
        seen.add(cls)
    summary = (cls.__doc__ or "").strip().split("\n")[0]
    summary = textwrap.fill(f"`{cls.__name__}`: {summary}", 118, break_long_words=False, break_on_hyphens=False)
    lines = [f"### `{title}`\n", f"{summary}\n"]
    rows = [row for field in dataclasses.fields(cls) if field.init and (row := _row(cls, field))]
    if rows:
        lines += ["| setting | values | default | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(cls: Any, field: Any) -> str:
    hint, kinds = hints_of(cls)[field.name], field.metadata.get("kinds")
    if kinds is None and dataclasses.is_dataclass(hint):
        return ""
    default = "" if field.default is dataclasses.MISSING else _shown(to_dict(field.default, kinds))
    about = _descriptions(cls).get(field.name, "").replace("|", "\\|")
    return f"| `{field.name}` | {_allowed(hint, field.metadata)} | {default} | {about} |"


def _allowed(hint: Any, metadata: Any) -> str:
    if (kinds := metadata.get("kinds")) is not None:
        return f"{'an' if kinds.what[0] in 'aeiou' else 'a'} {kinds.what}"
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    text = ", ".join(f"`{choice}`" for choice in choices) or getattr(hint, "__name__", str(hint))
    if typing.get_origin(hint) is tuple:
        entry = typing.get_args(hint)[0]
        text = f"tuple of `{entry.__name__}`" if dataclasses.is_dataclass(entry) else str(hint)
    low, high, above = (metadata.get(name) for name in ("low", "high", "above"))
    bounds = [f"{sign} {bound}" for sign, bound in ((">=", low), (">", above), ("<=", high)) if bound is not None]
    return " ".join([text, " and ".join(bounds)]).strip()


def _shown(value: Any) -> str:
    return f"`{value['kind']}`" if isinstance(value, dict) else f"`{value!r}`"


def _descriptions(cls: Any) -> dict[str, str]:
    """What the "Attributes:" of a class and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2].partition("Raises:")[0]
        for name, about in re.findall(r"^ {2}(\w+): (.*(?:\n {4}.*)*)", text, flags=re.MULTILINE):
            found[name] = " ".join(about.split())
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
