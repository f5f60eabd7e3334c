"""Tables of results.jsonl of quality.py: each model over its seeds, and one model against the others, seed by seed.

    python benchmarks/seeds.py FOLDER/results.jsonl [--model clustered]

Runs of one seed start with the same decoder and encoder and see the same minibatches, so a part of what differs between
seeds is common to all models. So differences are taken seed by seed, and their spread is that of the differences.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

COLUMNS = {
    "num_steps": "updates",
    "nats": "nats, at least",
    "bits_per_dimension_of_256_levels": "bits per dimension",
    "frechet_distance": "Frechet distance",
    "kernel_distance": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "seconds_for_10000_samples": "seconds for 10,000 samples",
}
COMPARED = ("nats", "frechet_distance")
Runs = dict[str, dict[int, Mapping[str, Any]]]  # by model and seed


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:,g}" if known else "-"
    deviation = np.std(known, ddof=1)
    digits = max(0, 1 - math.floor(math.log10(deviation))) if deviation else 0
    return f"{np.mean(known):,.{digits}f} +- {deviation:,.{digits}f}"


def tables(runs: Runs, model: str) -> Iterable[list[list[str]]]:
    """All models; then `model` less each of the others, over the seeds that both have."""
    yield [["model", "seeds", *COLUMNS.values()]] + [
        [name, str(len(seeds)), *(spread(run.get(key) for run in seeds.values()) for key in COLUMNS)]
        for name, seeds in runs.items()
    ]
    rows = [[f"{model} less", "seeds", *(COLUMNS[key] for key in COMPARED)]]
    for other, seeds in runs.items():
        both = [(runs[model][seed], run) for seed, run in seeds.items() if seed in runs.get(model, {})]
        if other != model and both:
            gains = [[a[key] - b[key] if key in a and key in b else None for a, b in both] for key in COMPARED]
            rows.append([other, str(len(both)), *map(spread, gains)])
    if len(rows) > 1:
        yield rows


def report(lines: Iterable[Mapping[str, Any]], model: str) -> str:
    """The tables in Markdown, of each experiment under each of its conditions."""
    cases: dict[str, Runs] = {}
    for line in lines:
        case = ", ".join(line[key] for key in ("experiment", "conditions", "judges"))
        cases.setdefault(case, {}).setdefault(line["model"], {})[line["seed"]] = line
    parts = []
    for case, runs in cases.items():
        parts.append(f"## {case}")
        for head, *rows in tables(runs, model):
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Prints the tables of one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--model", default="clustered", help="which model is compared with the others")
    given = parser.parse_args()
    print(report(map(json.loads, given.results.read_text().splitlines()), given.model), end="")


if __name__ == "__main__":
    main()
