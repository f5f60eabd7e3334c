"""Writes the tables of README.md and docs/ from the JSON lines in benchmarks/results/.

    python benchmarks/pages.py [--results benchmarks/results]

In a page a table stands between `<!-- results NAME -->` and `<!-- end -->`; NAME is a key of `page_tables.TABLES`. The
lines of a benchmark are those that it printed, in results/BENCHMARK.jsonl; its record in docs/decisions/ has the
command.
"""

import json
import pathlib
import re
from argparse import Namespace

from lib.measure import script
from lib.page_tables import TABLES, Lines

ROOT = pathlib.Path(__file__).parents[1]


def read(results: pathlib.Path, benchmark: str) -> Lines:
    """The lines of one benchmark."""
    return [json.loads(line) for line in (results / f"{benchmark}.jsonl").read_text().splitlines()]


def written(page: str, results: pathlib.Path) -> str:
    """The page with its tables made anew."""

    def made(found: re.Match[str]) -> str:
        function, benchmarks = TABLES[found[1]]
        table = function(*(read(results, benchmark) for benchmark in benchmarks))
        return f"<!-- results {found[1]} -->\n{table}\n\n<!-- end -->"

    return re.sub(r"<!-- results (\w+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def pages() -> list[pathlib.Path]:
    """All pages that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/decisions").glob("*.md"))]


@script(__doc__, results=ROOT / "benchmarks" / "results")
def main(given: Namespace) -> None:
    """Writes the tables into the pages."""
    for page in pages():
        page.write_text(written(page.read_text(), given.results))
