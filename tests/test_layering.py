"""Data flows one way: a module imports only from rooms above its own. Parsed from the source, so nothing hides."""

import ast
import pathlib
import re

import pytest

import kaem_jax

ROOT = pathlib.Path(kaem_jax.__file__).parent
DIAGRAM = (pathlib.Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
# The rows of the diagram, top to bottom; rooms in one row are of the same rank.
ROWS = [re.split(r"\s{3,}", row)[0].split() for row in DIAGRAM.split("```text\n")[1].split("```")[0].splitlines()]
RANK = {room: rank for rank, rooms in enumerate(ROWS) for room in rooms}


def room_of(module):
    """The part after the package; rooms of the application are apart."""
    parts = module.split(".")[1:3]
    return "/".join(parts if parts[0] == "app" else parts[:1])


def imports_of(source):
    """Absolute names under kaem_jax that a source imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= within if node.module in ("kaem_jax", "kaem_jax.app") else {node.module}
    return {name for name in names if name.startswith("kaem_jax.")}


def violations(files):
    """(importer, imported) pairs that go upward or sideways; `files` maps module names to sources.

    Chains and the model do not know each other."""
    pairs = [(module, imported) for module, source in files.items() for imported in imports_of(source)]
    rooms = [(pair, *map(room_of, pair)) for pair in pairs]
    return [
        pair
        for pair, ours, theirs in rooms
        if ours != theirs and (RANK[theirs] >= RANK[ours] or {ours, theirs} == {"mcmc", "model"})
    ]


def package_sources():
    parts = {path.relative_to(ROOT).with_suffix("").parts: path.read_text() for path in ROOT.rglob("*.py")}
    del parts[("__init__",)]  # the lazy public names stand outside the order
    return {".".join(("kaem_jax", *names)).removesuffix(".__init__"): source for names, source in parts.items()}


def test_imports_point_upward_and_modules_stay_short():
    sources = package_sources()
    assert {room_of(module) for module in sources} - {"app"} == set(RANK)
    assert violations(sources) == []
    assert max(source.count("\n") for source in sources.values()) <= 400


@pytest.mark.parametrize("line", ["from kaem_jax.model import Model", "def f():\n    from kaem_jax.app import loop"])
def test_an_upward_import_is_caught(line):
    assert violations({"kaem_jax.priors.product": line})
