"""Data flows one way: a module imports only from rooms above its own. Parsed from the source, so nothing hides."""

import ast
import pathlib
import re

import pytest

import kaem_jax

ROOT = pathlib.Path(kaem_jax.__file__).parent

DIAGRAM = pathlib.Path(__file__).parents[1] / "docs" / "architecture.md"


def rooms_of_the_diagram():
    """The rows of the diagram, top to bottom; rooms in one row are of the same rank."""
    diagram = DIAGRAM.read_text().split("```text\n")[1].split("```")[0]
    return [re.split(r"\s{3,}", line)[0].split() for line in diagram.splitlines()]


ROOMS = rooms_of_the_diagram()
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


def room_of(module):
    return module.split(".")[1] if "." in module else module


def imports_of(source):
    """Absolute names under kaem_jax that a source imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "kaem_jax" else {node.module}
            )
    return {name for name in names if name.startswith("kaem_jax.")}


def violations(files):
    """(importer, imported) pairs that go upward or sideways; `files` maps module names to sources."""
    found = []
    for module, source in files.items():
        for imported in imports_of(source):
            ours, theirs = room_of(module), room_of(imported)
            if ours != theirs and RANK[theirs] >= RANK[ours]:
                found.append((module, imported))
    return found


def package_sources():
    sources = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):  # the lazy public names stand outside the order
            sources[".".join(("kaem_jax", *parts)).removesuffix(".__init__")] = path.read_text()
    return sources


def test_imports_point_upward():
    sources = package_sources()
    assert {room_of(module) for module in sources} == set(RANK)
    assert violations(sources) == []


def test_chains_and_model_do_not_know_each_other():
    for module, source in package_sources().items():
        rooms = {room_of(name) for name in imports_of(source)}
        assert not (room_of(module) == "mcmc" and "model" in rooms)
        assert not (room_of(module) == "model" and "mcmc" in rooms)


@pytest.mark.parametrize("line", ["from kaem_jax.model import Model", "def f():\n    from kaem_jax import train"])
def test_an_upward_import_is_caught(line):
    assert violations({"kaem_jax.priors.product": line})


def test_modules_stay_short():
    lengths = {module: source.count("\n") for module, source in package_sources().items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}
