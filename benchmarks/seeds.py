"""Tables of the results of quality.py, over seeds, for the page on images.

    python benchmarks/seeds.py [--results benchmarks/results/quality.jsonl] [--page docs/quality.md]

In the page a table stands between `<!-- quality EXPERIMENT -->` and `<!-- end -->`.
"""

import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from measure import make_parser
from models import NAMES

ROOT = pathlib.Path(__file__).parents[1]
COLUMNS = {
    "num_steps": "updates", "fit_seconds": "fit, s", "nats": "nats, at least", "frechet_distance": "distance",
    "precision": "precision", "recall": "recall",
}  # fmt: skip


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:,.5g}" if known else "-"
    deviation = np.std(known, ddof=1)
    if not deviation:
        return f"{known[0]:,.5g}"
    digits = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{np.mean(known):,.{digits}f} +- {deviation:,.{digits}f}"


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """The table of one experiment, in Markdown."""
    runs: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        runs.setdefault(line["model"], {})[line["seed"]] = line
    rows = [["prior", "seeds", *COLUMNS.values()]]
    rows.append(["---"] * len(rows[0]))
    for model in (name for name in NAMES if name in runs):
        own = runs[model]
        cells = [spread(run.get(key) for run in own.values()) for key in COLUMNS]
        rows.append([NAMES[model], str(len(own)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written(page: str, lines: Iterable[Mapping[str, Any]]) -> str:
    """The page with its tables made anew."""
    by_experiment: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_experiment.setdefault(line["experiment"], []).append(line)
    return re.sub(
        r"<!-- quality (\w+) -->\n.*?<!-- end -->",
        lambda found: f"{found[0].partition(chr(10))[0]}\n\n{table(by_experiment[found[1]])}\n\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Writes the tables into the page."""
    given = make_parser(
        __doc__, results=ROOT / "benchmarks" / "results" / "quality.jsonl", page=ROOT / "docs" / "quality.md"
    ).parse_args()
    lines = map(json.loads, given.results.read_text().splitlines())
    given.page.write_text(written(given.page.read_text(), lines))


if __name__ == "__main__":
    main()
