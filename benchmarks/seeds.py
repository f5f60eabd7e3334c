"""Tables of the results of quality.py, over seeds, for the page on images.

    python benchmarks/seeds.py [--results benchmarks/results/quality.jsonl] [--page docs/quality.md]

In the page a table stands between `<!-- quality EXPERIMENT -->` and `<!-- end -->`. Runs of one seed start with the
same decoder and encoder and see the same minibatches, so a part of what differs between seeds is common to all models.
So the last column takes differences of nats seed by seed, and their spread is that of the differences.
"""

import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from measure import make_parser

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {
    "vae": "N(0, I): a VAE",
    "vamp": "VampPrior, 100 pseudo-inputs",
    "mixture": "the paper's prior, 19 components",
    "vae_then_flow": "VAE, then a coupling flow",
    "vae_then_flow_matching": "VAE, then flow matching",
    "vae_then_10_gaussians": "VAE, then 10 full Gaussians",
    "vae_then_100_gaussians": "VAE, then 100 full Gaussians",
    "vae_then_10_affine": "VAE, then 10 affine clusters",
    "vae_then_40_affine": "VAE, then 40 affine clusters",
    "gaussians": "100 diagonal Gaussians, jointly",
    "gaussians_then_40_gaussians": "jointly, then 40 full Gaussians",
    "gaussians_then_10_affine": "jointly, then 10 affine clusters",
    "gaussians_then_40_affine": "jointly, then 40 affine clusters",
    "gaussians_then_100_affine": "jointly, then 100 affine clusters",
}
COLUMNS = {
    "num_steps": "updates", "fit_seconds": "fit, s", "nats": "nats, at least", "frechet_distance": "distance",
    "precision": "precision", "recall": "recall", "seconds_for_10000_samples": "s for 10,000 draws",
}  # fmt: skip
OURS = "gaussians_then_40_affine"


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:,.5g}" if known else "-"
    deviation = np.std(known, ddof=1)
    digits = max(0, 1 - math.floor(math.log10(deviation))) if deviation else 0
    return f"{np.mean(known):,.{digits}f} +- {deviation:,.{digits}f}"


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """The table of one experiment, in Markdown."""
    runs: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        runs.setdefault(line["model"], {})[line["seed"]] = line
    rows = [["prior", "seeds", *COLUMNS.values(), "nats behind 40 affine"]]
    rows.append(["---"] * len(rows[0]))
    for model in (name for name in NAMES if name in runs):
        own, best = runs[model], runs.get(OURS, {})
        behind = [best[s]["nats"] - own[s]["nats"] for s in own if s in best and own[s].get("nats") is not None]
        cells = [spread(run.get(key) for run in own.values()) for key in COLUMNS]
        rows.append([NAMES[model], str(len(own)), *cells, "" if model == OURS else spread(behind)])
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
