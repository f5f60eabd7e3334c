"""Measures the package's structure from its source text, to compare two checkouts; imports and runs nothing of it.

    python tools/structure.py [CHECKOUT]

One JSON line for each room, a package or a module at the top of kaem_jax or of kaem_jax.app: its modules and lines of
Python. Then totals: lines of src, tests and benchmarks, `raise` and `assert` statements, names in `kaem_jax.__all__`,
and imports that go upward or sideways in the diagram of docs/architecture.md.
"""

import ast
import json
import pathlib
import re
import sys
from collections import Counter

PACKAGE = "kaem_jax"


def room_of(module: str) -> str:
    """The part after the package, two parts in the application; the package itself where there is none."""
    parts = module.split(".")[1:3]
    return "/".join(parts if parts[:1] == ["app"] else parts[:1]) or PACKAGE


def ranks(checkout: pathlib.Path) -> dict[str, int]:
    """Rows of the diagram by room, 0 at the top."""
    diagram = (checkout / "docs" / "architecture.md").read_text().split("```text\n")[1].split("```")[0]
    rows = [re.split(r"\s{3,}", line)[0].split() for line in diagram.splitlines()]
    return {room: rank for rank, rooms in enumerate(rows) for room in rooms}


def imports_of(tree: ast.AST) -> set[str]:
    """Modules of the package that a module imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in (PACKAGE, f"{PACKAGE}.app"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.startswith(f"{PACKAGE}.")}


def num_lines(folder: pathlib.Path) -> int:
    """Lines of Python below a folder."""
    return sum(path.read_text().count("\n") for path in folder.rglob("*.py"))


def main(checkout: pathlib.Path) -> None:
    """Prints everything."""
    root, rank = checkout / "src" / PACKAGE, ranks(checkout)
    modules, lines, statements, num_imports, upward = Counter[str](), Counter[str](), Counter[type](), 0, []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join((PACKAGE, *parts)).removesuffix(".__init__")
        room, text = room_of(module), path.read_text()
        tree = ast.parse(text)
        modules[room] += 1
        lines[room] += text.count("\n")
        statements.update(map(type, ast.walk(tree)))
        if room == PACKAGE:  # the lazy public names stand outside the order
            public = re.findall(r'"\w+"', text.split("__all__ = [")[1].split("]")[0])
            continue
        for imported in imports_of(tree):
            theirs = room_of(imported)
            num_imports += theirs != room
            if theirs != room and rank[theirs] >= rank[room]:
                upward.append(f"{module} <- {imported}")
    for room in sorted(lines, key=lambda room: rank.get(room, -1)):
        print(json.dumps({"room": room, "modules": modules[room], "lines": lines[room]}))
    packages = [room for room in lines if (root / room).is_dir()]
    totals = {
        "packages": len(packages),
        "modules_at_the_top": len(lines) - len(packages) - 1,
        "src": num_lines(root),
        "tests": num_lines(checkout / "tests"),
        "benchmarks": num_lines(checkout / "benchmarks"),
        "raises": statements[ast.Raise],
        "asserts": statements[ast.Assert],
        "public_names": len(public),
        "imports": num_imports,
        "upward": upward,
    }
    print(json.dumps(totals))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
