"""What results.jsonl of quality.py says of each model, over its seeds, and of one model against the others, by seed.

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


def by_experiment(lines: Iterable[Mapping[str, Any]]) -> dict[str, Runs]:
    """Runs of one experiment under the same conditions and judges: others must not be mixed with them."""
    found: dict[str, Runs] = {}
    for line in lines:
        case = ", ".join(line.get(key, f"{key} of before") for key in ("experiment", "conditions", "judges"))
        found.setdefault(case, {}).setdefault(line["model"], {})[line["seed"]] = line
    return found


def models_table(runs: Runs) -> list[list[str]]:
    """Mean and standard deviation over seeds."""
    rows = [["model", "seeds", *COLUMNS.values()]]
    for model, seeds in runs.items():
        rows.append([model, str(len(seeds)), *(spread(run.get(key) for run in seeds.values()) for key in COLUMNS)])
    return rows


def differences_table(runs: Runs, model: str) -> list[list[str]]:
    """`model` less each of the others: mean and standard deviation over the seeds that both have."""
    rows = [[f"{model} less", "seeds", *(COLUMNS[key] for key in COMPARED)]]
    for other, seeds in runs.items():
        both = [(run, runs[model][seed]) for seed, run in seeds.items() if seed in runs[model]]
        if other != model and both:
            cells = (
                spread(ours[key] - run[key] if key in run and key in ours else None for run, ours in both)
                for key in COMPARED
            )
            rows.append([other, str(len(both)), *cells])
    return rows


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:,g}" if known else "-"
    deviation = np.std(known, ddof=1)
    digits = max(0, 1 - math.floor(math.log10(deviation))) if deviation else 0
    return f"{np.mean(known):,.{digits}f} +- {deviation:,.{digits}f}"


def report(lines: Iterable[Mapping[str, Any]], model: str) -> str:
    """Both tables of every experiment, in Markdown."""
    parts = []
    for case, runs in by_experiment(lines).items():
        tables = [models_table(runs)] + ([differences_table(runs, model)] if model in runs else [])
        parts.append("\n\n".join([f"## {case}", *(markdown(rows) for rows in tables if len(rows) > 1)]))
    return "\n\n".join(parts) + "\n"


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def main() -> None:
    """Prints the tables of one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--model", default="clustered", help="which model is compared with the others")
    given = parser.parse_args()
    print(report(map(json.loads, given.results.read_text().splitlines()), given.model), end="")


if __name__ == "__main__":
    main()
