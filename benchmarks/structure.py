"""Measures the package's structure from its source text, to compare two checkouts; imports and runs nothing of it.

python benchmarks/structure.py [CHECKOUT [GROUP.FIELD [ROOM.FUNCTION]]]

Ranks are the rows of the diagram in docs/architecture.md, 0 at the top. Literals are whole strings outside docstrings.

Climbs are counted like this: a settings field is followed from a start function, by annotations and assignments. A
value carries the field if it is the field itself, its group of settings, that group as a dictionary, or an object of a
class with a member that carries it. An object that keeps only the number does not carry the field; give CLASS.FIELD
instead of GROUP.FIELD to follow it. A call is on the path if an argument, or the object whose method it is, carries the
field, and the callee reads the field, passes the group on as `**`, or makes such a call. A nested function is part of
the function around it. Each pair (caller, callee) counts once. It is a climb if the callee's room has a lower rank than
the caller's: the field came down from the settings to the caller and goes back up. Calls from or to `unranked` rooms
are not climbs; null means that there is no path.
"""

import ast
import json
import pathlib
import re
import sys
from collections import Counter, defaultdict
from typing import Any

PACKAGE = "kaem_jax"
LITERALS = {"samplers": ("importance", "langevin", "tempered"), "kernels": ("ula", "mala", "pcnl")}
FIELD = "<field>"  # stands for the value itself, among the names of classes


def emit(name: str, **result: Any) -> None:
    """Prints one JSON line."""
    print(json.dumps({"benchmark": f"structure_{name}", **result}))


def words(*nodes: ast.AST | None) -> set[str]:
    """The names in annotations."""
    return set(re.findall(r"\w+", " ".join(ast.unparse(node) for node in nodes if node)))


def path_of(trees: dict[str, ast.Module], scopes: dict[str, dict[str, str]], start: str, group: str, field: str) -> Any:
    """The calls on a field's path, sorted pairs of (module, class, name); `scopes` are the modules' imported names."""
    functions, members = dict[Any, Any](), defaultdict[str, Any](dict)  # by class and member: names in annotations
    for module, tree in trees.items():
        owners: list[Any] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
        for name, node in ((getattr(owner, "name", ""), node) for owner in owners for node in owner.body):
            if isinstance(node, ast.FunctionDef):
                functions[module, name, node.name], members[name][node.name] = node, words(node.returns)
                for arg in node.args.args if node.name == "__init__" else ():
                    members[name] |= dict.fromkeys((arg.arg, f"_{arg.arg}"), words(arg.annotation))
            elif isinstance(node, ast.AnnAssign):
                members[name][ast.unparse(node.target)] = words(node.annotation)
    size, begin = -1, {f for f in functions if [*f[0].split(".")[1:2], f[2]] == start.split(".")}
    roots = words(*(arg.annotation for f in begin for arg in functions[f].args.args))
    for name in {group, *(name for root in roots & members.keys() for name in members[root].get(group, ()))}:
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
        parts = [*ast.iter_child_nodes(node)]
        if isinstance(node, ast.Call):
            returned = words(*(functions[f].returns for f in callees(node.func, caller)))
            if returned and "dict" not in returned:
                return returned & carriers
            parts.append(getattr(node.func, "value", node.func))
        found = set().union(*(kinds(part, caller) for part in parts))
        return found - ({FIELD} if isinstance(node, ast.Call | ast.Compare | ast.JoinedStr | ast.Lambda) else set())

    def callees(func: Any, caller: Any) -> set[Any]:
        head, *rest = ast.unparse(func).split(".")
        full = ".".join([scopes[caller[0]].get(head, "" if rest else f"{caller[0]}.{head}"), *rest])
        source, _, last = full.rpartition(".")
        source, _, last = scopes.get(source, {}).get(last, full).rpartition(".")  # the module may re-export the name
        exact = {(source, "", last), (*source.rsplit(".", 1), last)} & functions.keys()
        methods = {f for f in functions if f[1] and f[2] == last}
        typed = {f for f in methods if {f[1], group} & kinds(getattr(func, "value", func), caller)}
        return exact or typed or (methods if rest and head not in scopes[caller[0]] else set())

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
            useful.update({caller} if any(not k.arg and kinds(k.value, caller) for k in node.keywords) else ())
            func, *args = node.args if ast.unparse(node.func).endswith("partial") else [node.func, *node.args]
            for callee in callees(func, caller):
                names = [arg.arg for arg in ast.walk(functions[callee].args) if isinstance(arg, ast.arg)]
                values = [getattr(func, "value", func), *args] if names[:1] in (["self"], ["cls"]) else args
                keywords = ((n, k.value) for k in node.keywords for n in ([k.arg] if k.arg else [field, *names[-1:]]))
                for name, found in ((n, kinds(v, caller)) for n, v in [*zip(names, values, strict=False), *keywords]):
                    known[callee][name] |= {FIELD} if name == field and found else found  # of a group's dictionary
                    edges.update({(caller, callee)} if found else ())

    while size != (size := len(edges) + sum(len(found) for names in known.values() for found in names.values())):
        for caller in sorted(begin.union(callee for _, callee in edges)):
            for node in ast.walk(functions[caller]):
                follow(node, caller)
    while more := {a for a, b in edges if b in useful} - useful:
        useful |= more
    return sorted(edge for edge in edges if edge[1] in useful)


def main() -> None:
    """Prints one JSON line for each topic, for the checkout that holds this file or for another one."""
    defaults = [str(pathlib.Path(__file__).parents[1]), "posterior.num_steps", "train.train_and_evaluate"]
    checkout, field, start = [*sys.argv[1:], *defaults[len(sys.argv) - 1 :]]
    source = pathlib.Path(checkout, "src")
    files = {f.relative_to(source).with_suffix(""): f.read_text() for f in sorted(source.glob(f"{PACKAGE}/**/*.py"))}
    trees = {".".join(file.parts).removesuffix(".__init__"): ast.parse(text) for file, text in files.items()}
    room = {module: [*module.split("."), "__init__"][1] for module in trees}
    rooms = set(room.values()) - {"__init__"}
    emit("size", rooms=len(rooms), modules=len(trees), lines=sum(text.count("\n") for text in files.values()))
    diagram = re.findall(
        r"(?s)# What is where.*?```text\n(.*?)```", (source.parent / "docs/architecture.md").read_text()
    )[0]
    rank = {name: i for i, row in enumerate(diagram.splitlines()) for name in re.split(r"\s{3,}", row)[0].split()}
    nodes = [(module, node) for module, tree in trees.items() for node in ast.walk(tree)]
    arrows, scopes = set(), {module: dict[str, str]() for module in trees}
    for m, node, alias in ((m, n, a) for m, n in nodes for a in getattr(n, "names", ()) if isinstance(a, ast.alias)):
        full = scopes[m][alias.asname or alias.name] = f"{getattr(node, 'module', '')}.{alias.name}".strip(".")
        arrows |= {(room[m], full.split(".")[1])} if full.startswith(f"{PACKAGE}.") else set()
    arrows = {(a, b) for a, b in arrows if a != b and {a, b} <= rooms}
    upward = sorted(f"{a} > {b}" for a, b in arrows if {a, b} <= rank.keys() and rank[b] >= rank[a])
    emit("arrows", arrows=len(arrows), upward=len(upward), which=upward, not_in_diagram=sorted(rooms - rank.keys()))
    calls = path_of(trees, scopes, start, *field.split("."))
    climbs = sum(rank.get(room[b[0]], len(rank)) < rank.get(room[a[0]], -1) for a, b in calls) if calls else None
    path = [" > ".join(".".join(filter(None, f)).removeprefix(f"{PACKAGE}.") for f in call) for call in calls]
    unranked = sorted({room[f[0]] for call in calls for f in call} - rank.keys())
    emit("climbs", field=field, start=start, climbs=climbs, calls=len(calls), unranked=unranked, path=path)
    plain = {id(node.value) for _, node in nodes if isinstance(node, ast.Expr)}
    for name, values in LITERALS.items():
        found = Counter(m for m, n in nodes if isinstance(n, ast.Constant) and n.value in values and id(n) not in plain)
        emit(f"literals_{name}", total=found.total(), files=found)
    notes = [(m, getattr(node, key, 0)) for m, node in nodes for key in ("annotation", "returns")]
    found = Counter(room[module] for module, note in notes if getattr(note, "id", "") == "Any")
    emit("any", total=found.total(), rooms=found)


if __name__ == "__main__":
    main()
