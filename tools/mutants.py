"""Makes a random sample of small mistakes in the package, and runs the fast tests that execute their lines; JSON lines.

    python tools/mutants.py [--num 200] [--seed 0] [--jobs 2] [--only priors/ mcmc/]

The mistakes are mutmut's: an argument is dropped or becomes None, a condition is turned, a number grows by one, an
operator is exchanged. Texts, annotations and errors that are raised are left as they are. The fast tests run once for
their coverage and durations. For each mistake the tests that execute its line follow, short ones first, and then the
files that hold them, since programs compiled by one test are reused by the next.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import coverage
import libcst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "kaem_jax"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-m", "not slow"]
_SECONDS = 90  # of tests for one mistake, by their durations without it


class Mutant(NamedTuple):
    """A mistake: the file below src/kaem_jax, its line, the old and the new fragment, and the whole new file."""

    file: str
    line: int
    old: str
    new: str
    text: str


class _Mutations(libcst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[int, libcst.CSTNode, libcst.CSTNode]] = []

    def on_visit(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, libcst.Annotation | libcst.Decorator | libcst.Raise | libcst.Import | libcst.ImportFrom):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and operator is not operator_string:
                line = self.get_metadata(PositionProvider, node).start.line
                self.found += [(line, node, new) for new in operator(node)]
        return True


def sample(paths: Sequence[pathlib.Path], num: int, seed: int) -> list[Mutant]:
    """Random mistakes, each as likely as any other, without those that Python refuses to compile."""
    places = []
    for path in paths:
        wrapper, visitor = MetadataWrapper(libcst.parse_module(path.read_text())), _Mutations()
        wrapper.visit(visitor)
        places += [(path, wrapper.module, *place) for place in visitor.found]
    random.Random(seed).shuffle(places)
    found: list[Mutant] = []
    for path, module, line, old, new in places:
        text = module.deep_replace(old, new).code  # type: ignore[arg-type, attr-defined]
        try:
            compile(text, path.name, "exec")
        except SyntaxError:
            continue
        code = module.code_for_node
        found.append(Mutant(str(path.relative_to(PACKAGE)), line, code(old), code(new), text))
        if len(found) == num:
            break
    return found


class Tests:
    """The fast tests: which execute a line, and how long they take."""

    def __init__(self, folder: pathlib.Path):
        report, data = folder / "junit.xml", folder / "coverage"
        measured = ["--cov=kaem_jax", "--cov-context=test", "--cov-report=", f"--junitxml={report}"]
        environment = os.environ | {"COVERAGE_FILE": str(data), "PYTHONPATH": str(ROOT / "src")}
        subprocess.run([*PYTEST, "-n", "2", "--dist", "loadfile", *measured], cwd=ROOT, env=environment, check=True)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            file = case.attrib["classname"].replace(".", "/") + ".py"
            for name in (file, f"{file}::{case.attrib['name']}"):
                self._seconds[name] += float(case.attrib["time"])
        self._data = coverage.CoverageData(str(data))
        self._data.read()

    def of(self, mutant: Mutant) -> list[str]:
        """Tests that execute the mutant's line, then their files; the file beside the module's name comes first."""
        contexts = self._data.contexts_by_lineno(str(PACKAGE / mutant.file)).get(mutant.line, [])
        names = {context.partition("|")[0] for context in contexts} - {""}
        files = {name.partition("::")[0] for name in names}
        if not files:  # of an import, or of no test
            room = mutant.file.partition("/")[0].removesuffix(".py")
            files = {file for file in self._seconds if "::" not in file and room in file}
        own = pathlib.Path(mutant.file).stem
        order = [*sorted(names, key=self._seconds.get), *sorted(files, key=lambda f: (own not in f, self._seconds[f]))]  # type: ignore[arg-type]
        chosen: list[str] = []
        left = float(_SECONDS)
        for name in order:
            if (left := left - self._seconds[name]) > 0 or not chosen:
                chosen.append(name)
        return chosen


def outcome(mutant: Mutant, tests: list[str], source: pathlib.Path) -> str:
    """Whether a test fails with the mutant in `source`, a copy of src."""
    path = source / "kaem_jax" / mutant.file
    right = path.read_text()
    path.write_text(mutant.text)
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*PYTEST, "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=4 * _SECONDS)
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        path.write_text(right)
    return "survived" if done.returncode in (0, 5) else "killed"


def main() -> None:
    """Prints a line for each mutant, and one with the share that was killed in each room."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of files below src/kaem_jax")
    given = parser.parse_args()
    files = sorted(PACKAGE.rglob("*.py"))
    wanted = [path for path in files if str(path.relative_to(PACKAGE)).startswith(tuple(given.only))]
    chosen = sample(wanted, given.num, given.seed)
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        tests = Tests(pathlib.Path(folder))
        copies: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(given.jobs):
            copies.put(shutil.copytree(ROOT / "src", pathlib.Path(folder) / str(number)))

        def tried(mutant: Mutant) -> dict[str, Any]:
            source, of_line = copies.get(), tests.of(mutant)
            try:
                return {**mutant._asdict(), "tests": len(of_line), "outcome": outcome(mutant, of_line, source)}
            finally:
                copies.put(source)

        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            for row in pool.map(tried, chosen):
                del row["text"]
                rooms[row["file"].partition("/")[0]][row["outcome"]] += 1
                print(json.dumps(row), flush=True)
    total = sum(rooms.values(), Counter())
    share = {room: f"{count['killed']} of {count.total()}" for room, count in sorted(rooms.items())}
    print(json.dumps({"killed": total["killed"], "tried": total.total(), "rooms": share}))


if __name__ == "__main__":
    main()
