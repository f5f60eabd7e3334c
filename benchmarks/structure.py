"""Counts the package from its source text, so that two checkouts can be compared; nothing of it is imported or run.

python benchmarks/structure.py [CHECKOUT] [--field GROUP.FIELD] [--start ROOM.FUNCTION]

Rooms are the top-level modules and folders, their ranks the rows of README.md's diagram, 0 at the top. Literals are
whole strings outside docstrings, whatever they mean there (`importance` is a method of evidence too).

A climb: the field is followed from `--start` on, by annotations and assignments. A value carries it if it is the field,
its group of settings, or an object of a class with a member that carries it, but not one that keeps only the number. A
call is on the path if an argument, or the object whose method it is, carries the field, and the callee reads the field
or makes such a call itself; `functools.partial` is a call, a nested function part of the one around it, a constructor
none. Each pair (caller, callee) counts once, as a climb if the callee's room has a lower rank than the caller's: the
field came down from the settings to the caller and goes back up. `longest_chain` is the most climbs on one way.
"""

import argparse
import ast
import json
import pathlib
import re
from collections import Counter, defaultdict
from typing import Any

PACKAGE = "kaem_jax"
LITERALS = {"samplers": ("importance", "langevin", "tempered"), "kernels": ("ula", "mala", "pcnl")}
FIELD = "<field>"  # stands among the names of classes for the value itself


def emit(name: str, **result: Any) -> None:
    """Prints one JSON line."""
    print(json.dumps({"benchmark": f"structure_{name}", **result}))


def words(node: ast.AST | None) -> set[str]:
    """The names in an annotation."""
    return set(re.findall(r"\w+", ast.unparse(node))) if node else set()


def path_of(trees: dict[str, ast.Module], scopes: dict[str, dict[str, str]], start: str, group: str, field: str) -> Any:
    """The calls on a field's path, sorted pairs of (module, class, name); `scopes` are the modules' imported names."""
    functions, members = dict[Any, Any](), defaultdict[str, Any](dict)  # of classes: the names in the annotations
    for module, tree in trees.items():
        owners: list[Any] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
        for name, node in ((getattr(owner, "name", ""), node) for owner in owners for node in owner.body):
            if isinstance(node, ast.FunctionDef):
                functions[module, name, node.name], members[name][node.name] = node, words(node.returns)
            elif isinstance(node, ast.AnnAssign):
                members[name][ast.unparse(node.target)] = words(node.annotation)
    for name in {name for m in members.values() for name in m.get(group, ()) if field in members.get(name, ())}:
        members[name][field] = {FIELD}
    carriers, edges, useful = {FIELD}, set[Any](), set[Any]()
    while more := {c for c, m in members.items() if any(names & carriers for names in m.values())} - carriers:
        carriers |= more
    known: Any = defaultdict(lambda: defaultdict(set))  # by function and name, what the value carries

    def kinds(node: Any, caller: Any) -> set[str]:
        if isinstance(node, ast.Name):
            return known[caller][node.id] | {node.id} & carriers
        if isinstance(node, ast.Attribute):
            return carriers & {n for c in kinds(node.value, caller) for n in members.get(c, {}).get(node.attr, ())}
        if isinstance(node, ast.Call) and (found := callees(node.func, caller)):
            return carriers & set().union(*(words(functions[f].returns) for f in found))
        found = set().union(*(kinds(child, caller) for child in ast.iter_child_nodes(node)))
        return found - ({FIELD} if isinstance(node, ast.Call | ast.Compare | ast.JoinedStr | ast.Lambda) else set())

    def callees(func: Any, caller: Any) -> set[Any]:
        head, *rest = ast.unparse(func).split(".")
        if full := scopes[caller[0]].get(head, "" if rest else f"{caller[0]}.{head}"):
            source, _, last = (full := ".".join([full, *rest])).rpartition(".")
            source, _, last = scopes.get(source, {}).get(last, full).rpartition(".")  # the name may be handed on
            return {(source, "", last)} & functions.keys()
        methods = {f for f in functions if f[1] and f[2] == rest[-1]}
        return {f for f in methods if f[1] in kinds(func.value, caller)} or methods

    def follow(node: Any, caller: Any) -> None:
        if isinstance(node, ast.arg | ast.FunctionDef):  # a parameter, a nested function
            name, note = (node.arg, node.annotation) if isinstance(node, ast.arg) else (node.name, node.returns)
            known[caller][name] |= words(note) & carriers
        elif isinstance(node, ast.Assign):
            lefts = getattr(node.targets[0], "elts", node.targets)
            rights = getattr(node.value, "elts", ()) if len(lefts) > 1 else ()
            for left, right in zip(lefts, rights or [node.value] * len(lefts), strict=False):
                known[caller][ast.unparse(left)] |= kinds(right, caller)
        elif isinstance(node, ast.Name | ast.Attribute) and FIELD in kinds(node, caller):
            useful.add(caller)
        elif isinstance(node, ast.Call):
            func, *args = node.args if ast.unparse(node.func).endswith("partial") else [node.func, *node.args]
            for callee in callees(func, caller):
                expected = [arg.arg for arg in ast.walk(functions[callee].args) if isinstance(arg, ast.arg)]
                values = [getattr(func, "value", func), *args] if expected[:1] == ["self"] else args
                given = [*zip(expected, values, strict=False), *((k.arg or field, k.value) for k in node.keywords)]
                for name, found in ((name, kinds(value, caller)) for name, value in given):
                    known[callee][name] |= {FIELD} if name == field and found else found  # **group
                    edges.update({(caller, callee)} if found else ())

    size, begin = -1, {f for f in functions if [*f[0].split(".")[1:2], f[2]] == start.split(".")}
    while size != (size := len(edges) + sum(len(found) for names in known.values() for found in names.values())):
        for caller in sorted(begin.union(callee for _, callee in edges)):
            for node in ast.walk(functions[caller]):
                follow(node, caller)
    while more := {a for a, b in edges if b in useful} - useful:
        useful |= more
    return sorted(edge for edge in edges if edge[1] in useful)


def main() -> None:
    """Prints one JSON line a topic, for the checkout that this file lies in or another."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkout", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).parents[1])
    parser.add_argument("--field", default="posterior.num_steps")
    parser.add_argument("--start", default="train.train_and_evaluate")
    given = parser.parse_args()
    source = given.checkout / "src"
    files = {f.relative_to(source).with_suffix(""): f.read_text() for f in sorted(source.glob(f"{PACKAGE}/**/*.py"))}
    trees = {".".join(file.parts).removesuffix(".__init__"): ast.parse(text) for file, text in files.items()}
    room = {module: [*module.split("."), "__init__"][1] for module in trees}
    rooms = set(room.values()) - {"__init__"}
    emit("size", rooms=len(rooms), modules=len(trees), lines=sum(text.count("\n") for text in files.values()))
    diagram = (given.checkout / "README.md").read_text().partition("## What is where")[2].partition("```text\n")[2]
    rows = [re.split(r"\s{3,}", line)[0].split() for line in diagram.partition("```")[0].splitlines()]
    rank = {name: i for i, row in enumerate(rows) for name in row}
    nodes = [(module, node) for module, tree in trees.items() for node in ast.walk(tree)]
    lines = [(m, node) for m, node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = [
        (m, a.asname or a.name, f"{getattr(n, 'module', '')}.{a.name}".strip(".")) for m, n in lines for a in n.names
    ]
    arrows = {(room[m], full.split(".")[1]) for m, _, full in imports if full.startswith(f"{PACKAGE}.")}
    arrows = {(a, b) for a, b in arrows if a != b and {a, b} <= rooms}
    upward = sorted(f"{a} > {b}" for a, b in arrows if {a, b} <= rank.keys() and rank[b] >= rank[a])
    emit("arrows", arrows=len(arrows), upward=len(upward), which=upward, not_in_diagram=sorted(rooms - rank.keys()))
    scopes = {module: {name: full for m, name, full in imports if m == module} for module in trees}
    calls = path_of(trees, scopes, given.start, *given.field.split("."))
    climbs = {(a, b) for a, b in calls if rank.get(room[b[0]], len(rows)) < rank.get(room[a[0]], -1)}
    chain: Counter[Any] = Counter()
    for a, b in calls * len(calls):
        chain[a] = max(chain[a], chain[b] + ((a, b) in climbs))
    path = [" > ".join(".".join(filter(None, f)).removeprefix(f"{PACKAGE}.") for f in call) for call in calls]
    count = {"climbs": len(climbs), "longest_chain": max(chain.values())} if calls else {"reason": "nothing found"}
    emit("climbs", field=given.field, start=given.start, **count, calls=len(calls), path=path)
    plain = {id(node.value) for _, node in nodes if isinstance(node, ast.Expr)}
    for name, values in LITERALS.items():
        found = Counter(m for m, n in nodes if isinstance(n, ast.Constant) and n.value in values and id(n) not in plain)
        emit(f"literals_{name}", total=found.total(), files=found)
    notes = [(m, getattr(node, key, 0)) for m, node in nodes for key in ("annotation", "returns")]
    found = Counter(room[module] for module, note in notes if getattr(note, "id", "") == "Any")
    emit("any", total=found.total(), rooms=found)


if __name__ == "__main__":
    main()
