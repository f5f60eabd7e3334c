"""The tables that `pages.py` writes, made of the JSON lines of benchmarks."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from models import NAMES

Lines = Sequence[Mapping[str, Any]]
QUALITY = {
    "num_steps": "updates", "fit_seconds": "fit, s", "nats": "nats, at least", "frechet_distance": "distance",
    "precision": "precision", "recall": "recall",
}  # fmt: skip
OUTLIERS = {
    "kaem": "KAEM", "log_p": "log p alone", "neighbours": "5 neighbours", "dte_np": "DTE-NP",
    "mixture": "mixture (BIC)", "forest": "isolation forest", "pca": "PCA", "false_alarms": "false alarms, %",
}  # fmt: skip
NATS = {
    "kaem": "KAEM", "density": "KAEM without a decoder", "gaussian": "Gaussian", "mixture": "mixture (BIC)",
    "kernel": "kernel density",
}  # fmt: skip
FILLED = {"rmse": "KAEM", "rmse_iterative": "IterativeImputer", "rmse_neighbours": "KNNImputer"}
DENSITIES = {"kaem": "KAEM", "flow": "spline flow", "mixture": "mixture (BIC)", "kernel": "kernel"}


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


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def best(values: Sequence[float], digits: int, largest: bool = True) -> list[str]:
    """Numbers as text, the best of them bold."""
    return bold(values, [f"{value:.{digits}f}" for value in values], largest)


def bold(values: Sequence[float], texts: Sequence[str], largest: bool) -> list[str]:
    """`texts`, bold where they equal that of the best value."""
    top = texts[int(np.argmax(values) if largest else np.argmin(values))]
    return [f"**{text}**" if text == top else text for text in texts]


def mean(lines: Lines, key: str) -> float:
    """The mean of one number of all lines."""
    return float(np.mean([line[key] for line in lines]))


def quality(lines: Lines, experiment: str) -> str:
    """Models by seeds, of one set of images."""
    rows = [["prior", "seeds", *QUALITY.values()]]
    for model in NAMES:
        own = {line["seed"]: line for line in lines if (line["experiment"], line["model"]) == (experiment, model)}
        if own:
            cells = [spread(line.get(key) for line in own.values()) for key in QUALITY]
            rows.append([NAMES[model], str(len(own)), *cells])
    return markdown(rows)


def outliers(lines: Lines) -> str:
    """Mean areas under the ROC curve of all tables and seeds."""
    own = [line for line in lines if line["benchmark"] == "outliers"]
    areas = best([mean(own, key) for key in OUTLIERS if key != "false_alarms"], 1)
    tables = len({line["table"] for line in own})
    head = ["tables, runs", *OUTLIERS.values()]
    return markdown([head, [f"{tables}, {len(own)}", *areas, f"{100 * mean(own, 'false_alarms'):.1f}"]])


def densities(lines: Lines) -> str:
    """Nats of each table, means over seeds; the last row has mean ranks."""
    own = [line for line in lines if line["benchmark"] == "densities"]
    rows = [["table, training rows", *DENSITIES.values()]]
    for table in dict.fromkeys(line["table"] for line in own):
        runs = [line for line in own if line["table"] == table]
        num, size = runs[0]["shape"]
        cells = best([mean(runs, model) for model in DENSITIES], 2)
        rows.append([f"{table.partition('_')[2]}, {num:,} x {size}", *cells])
    return markdown([*rows, ["mean rank", *best(ranks(own), 2, largest=False)]])


def ranks(lines: Lines) -> list[float]:
    """The mean rank of each density over tables and seeds, 1 for the best."""
    of_runs = [[1 + sum(line[other] > line[own] for other in DENSITIES) for own in DENSITIES] for line in lines]
    return np.mean(of_runs, axis=0).tolist()


def samples(lines: Lines) -> str:
    """How well samples pass for rows."""
    keys = {"detection": "detection (1: none)", "shape": "shape", "trend": "trend", "closer": "closer to training rows",
            "seconds": "s"}  # fmt: skip
    names = {"kaem": "KAEM", "mixtures": "full Gaussian mixtures of each class"}
    rows = [
        [name, *(spread(line[key] for line in lines if line["model"] == model) for key in keys)]
        for model, name in names.items()
    ]
    return markdown([["model", *keys.values()], *rows])


def split_tables(lines: Lines, columns: Mapping[str, str], largest: bool, covered: bool = False) -> str:
    """Means and deviations over splits of each table."""
    rows = [["table", *columns.values(), *(["cells in the 90 % intervals"] if covered else [])]]
    for table in dict.fromkeys(line["table"] for line in lines):
        own = [line for line in lines if line["table"] == table]
        cells = bold(
            [mean(own, key) for key in columns], [spread(line[key] for line in own) for key in columns], largest
        )
        rows.append([table.replace("_", " "), *cells, *([f"{100 * mean(own, 'covered'):.0f} %"] if covered else [])])
    return markdown(rows)


def binary(lines: Lines) -> str:
    """Nats of binary sets under two priors and two decoders."""
    cases = [([], "linear"), ([16], "16 hidden")]
    rows = [["", *(f"{words}: {prior}" for _, words in cases for prior in ("N(0, I)", "learned"))]]
    for name in dict.fromkeys(line["set"] for line in lines):
        cells = []
        for hidden, _ in cases:
            own = [line for line in lines if (line["set"], line["hidden"]) == (name, hidden)]
            nats = {line["prior"]: line["nats"] for line in own}
            cells += best([nats["normal"], nats["learned"]], 3)
        rows.append([name, *cells])
    return markdown(rows)


def headline(images: Lines, tables: Lines, shapes: Lines, chains: Lines) -> str:
    """The README's table: what, against whom, figures."""
    models = ("full_then_40_gaussians", "vae", "vae_then_100_gaussians")
    of_models = [[line for line in images if (line["experiment"], line["model"]) == ("mnist", name)] for name in models]
    nats = best([mean(own, "nats") for own in of_models], 1)
    distances = best([mean(own, "frechet_distance") for own in of_models], 1, largest=False)
    of_images = [", ".join(pair) for pair in zip(nats, distances, strict=True)]
    ours, *others = ranks([line for line in tables if line["benchmark"] == "densities"])
    found = {
        method: ", ".join(f"{line['share']:.3f}" for line in chains if _is(line, target="two_modes", method=method))
        for method in ("tempered", "numpyro NUTS")
    }
    return markdown(
        [
            ["what", "against", "figure"],
            ["MNIST, 200 s of one core: nats, at least; Frechet distance", "a VAE; the VAE, then 100 full Gaussians on "
             "its codes", "; ".join(of_images)],
            ["a checkerboard in the plane: KL to the truth", "scikit-learn's best Gaussian mixture of up to 100 "
             "components", f"**{spread(line['kl'] for line in shapes)}**; "
             f"{spread(line['kl_gaussians_best'] for line in shapes)}"],
            ["twelve tables, defaults: mean rank of held-out nats", "a neural spline flow; Gaussian mixtures; a kernel "
             "density", f"**{ours:.2f}**; {'; '.join(f'{rank:.2f}' for rank in others)}"],
            ["two modes in 20 dimensions: share of the larger one, truth 0.700", "NUTS of numpyro",
             f"**{found['tempered']}**; {found['numpyro NUTS']}"],
        ]
    )  # fmt: skip


def _is(line: Mapping[str, Any], **values: str) -> bool:
    return all(line.get(name) == value for name, value in values.items())


# The function of each table, and the benchmarks whose lines it takes.
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "mnist": (functools.partial(quality, experiment="mnist"), ("quality",)),
    "svhn": (functools.partial(quality, experiment="svhn"), ("quality",)),
    "cifar10": (functools.partial(quality, experiment="cifar10"), ("quality",)),
    "outliers": (outliers, ("outliers",)),
    "densities": (densities, ("densities",)),
    "samples": (samples, ("samples",)),
    "nats": (functools.partial(split_tables, columns=NATS, largest=True), ("tables",)),
    "filled": (functools.partial(split_tables, columns=FILLED, largest=False, covered=True), ("tables",)),
    "binary": (binary, ("binary",)),
    "headline": (headline, ("quality", "densities", "shapes", "tempering")),
}
