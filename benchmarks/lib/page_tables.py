"""The tables that `pages.py` writes, made of the JSON lines of benchmarks."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lib.models import NAMES

Lines = Sequence[Mapping[str, Any]]
QUALITY = {
    "num_steps": "updates", "fit_seconds": "fit, s", "nats": "nats, at least", "frechet_distance": "distance",
    "precision": "precision", "recall": "recall",
}  # fmt: skip
CONDITIONS, STAGED, WIDE = "200 s, test", "250 s, test", "200 s, prior.num_latents=100"
PARTS = {
    "clusters with covariance": ("vae", "vae_then_10_gaussians"),
    "more clusters": ("vae_then_10_gaussians", "vae_then_100_gaussians"),
    "axes and shapes, 10 clusters": ("vae_then_10_gaussians", "vae_then_10_affine"),
    "axes and shapes, 40 clusters": ("gaussians_then_40_gaussians", "gaussians_then_40_affine"),
    "a fit after joint training": ("gaussians", "gaussians_then_40_gaussians"),
    "full instead of diagonal in training": ("gaussians_then_40_gaussians", "full_then_40_gaussians"),
}
OUTLIERS = {
    "kaem": "KAEM", "log_p": "log p alone", "neighbours": "5 neighbours", "dte_np": "DTE-NP",
    "mixture": "mixture (BIC)", "forest": "isolation forest", "pca": "PCA", "false_alarms": "false alarms, %",
}  # fmt: skip
SAMPLES = {
    "detection": "detection (1: none)", "shape": "shape", "trend": "trend", "closer": "closer to training rows",
    "seconds": "s",
}  # fmt: skip
NATS = {
    "kaem": "KAEM", "density": "KAEM without a decoder", "gaussian": "Gaussian", "mixture": "mixture (BIC)",
    "kernel": "kernel density",
}  # fmt: skip
FILLED = {"rmse": "KAEM", "rmse_iterative": "IterativeImputer", "rmse_neighbours": "KNNImputer"}
TARGETS = {
    "two_modes": "two modes, 20 dimensions", "funnel": "funnel, 10", "banana": "banana, 2", "grid": "25 modes, 2",
    "student": "Student's t, 50", "rosenbrock": "hybrid Rosenbrock, 6", "regression": "linear regression, 20",
    "mvn100": "normal, 100 (Pigeons)",
    **{f"apart{size}": f"two widths, {size}, in random directions" for size in (10, 20, 50)},
    **{f"widths{size}_narrow": f"two widths, {size}, the heavier mode narrower" for size in (10, 20, 50)},
    **{f"widths{size}_wide": f"two widths, {size}, the heavier mode wider" for size in (10, 20, 50)},
}  # fmt: skip
OBJECTIVES = {
    "ula": "plain ULA", "posterior": "tempered, gradient at temperature 1", "thermodynamic": "thermodynamic sum",
}  # fmt: skip
EXCHANGES = {"none": "-", "separate": "each datum", "joint": "minibatch"}
ABLATION = {
    "num_updates": "updates", "frechet_distance": "distance", "nats": "nats, at least",
    "squared_error": "squared error", "swap_acceptance": "swaps accepted", "swap_acceptance_min": "of the worst pair",
}  # fmt: skip
DENSITIES = {"kaem": "KAEM", "flow": "spline flow", "mixture": "mixture (BIC)", "kernel": "kernel"}


def spread(values: Iterable[float | None]) -> str:
    """Mean +- standard deviation, to two digits of the latter; "-" where there is no number."""
    known = [value for value in values if value is not None]
    deviation = np.std(known, ddof=1) if len(known) > 1 else 0
    if not deviation:
        return f"{known[0]:,.5g}" if known else "-"
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


def having(lines: Lines, **values: Any) -> Lines:
    """The lines with these values."""
    return [line for line in lines if all(line.get(name) == value for name, value in values.items())]


def grouped(lines: Lines, *keys: str) -> Mapping[Any, Lines]:
    """Lines by the values of `keys` (by the value, if there is one key), in their order."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for line in lines:
        values = tuple(line[key] for key in keys)
        groups.setdefault(values if len(keys) > 1 else values[0], []).append(line)
    return groups


def quality(lines: Lines, experiment: str, conditions: str = CONDITIONS) -> str:
    """Models by seeds, of one set of images."""
    rows = [["prior", "seeds", *QUALITY.values()]]
    for model, name in NAMES.items():
        own = {line["seed"]: line for line in having(lines, experiment=experiment, conditions=conditions, model=model)}
        if own:
            rows.append([name, str(len(own)), *(spread(line.get(key) for line in own.values()) for key in QUALITY)])
    return markdown(rows)


def parts(lines: Lines) -> str:
    """What each part of the clustered prior is worth on MNIST, in means over seeds."""
    of_models = grouped(having(lines, experiment="mnist", conditions=CONDITIONS), "model")
    rows = [["part", "from", "to", "nats", "distance"]]
    for part, models in PARTS.items():
        (nats, distance), (more, less) = (
            [mean(of_models[model], key) for key in ("nats", "frechet_distance")] for model in models
        )
        names = [NAMES[model] for model in models]
        rows.append([part, *names, f"{more - nats:+.1f}", f"{distance:.1f} to {less:.1f}"])
    return markdown(rows)


def full_length(lines: Lines) -> str:
    """Runs to their end."""
    keys = [key for key in QUALITY if key != "fit_seconds"]
    rows = [["run", *(QUALITY[key] for key in keys)]]
    for line in lines:
        name = f"{line['run']}: {NAMES[line['fit']]}" if line["fit"] else line["run"]
        rows.append([name, *(spread([line[key]]) for key in keys)])
    return markdown(rows)


def outliers(lines: Lines) -> str:
    """Mean areas under the ROC curve of all tables and seeds."""
    own = having(lines, benchmark="outliers")
    areas = best([mean(own, key) for key in OUTLIERS if key != "false_alarms"], 1)
    row = [f"{len(grouped(own, 'table'))}, {len(own)}", *areas, f"{100 * mean(own, 'false_alarms'):.1f}"]
    return markdown([["tables, runs", *OUTLIERS.values()], row])


def densities(lines: Lines) -> str:
    """Nats of each table, means over seeds; the last row has mean ranks."""
    own = having(lines, benchmark="densities")
    rows = [["table, training rows", *DENSITIES.values()]]
    for table, runs in grouped(own, "table").items():
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
    names = {"kaem": "KAEM", "mixtures": "full Gaussian mixtures of each class"}
    rows = [
        [name, *(spread(line[key] for line in having(lines, model=model)) for key in SAMPLES)]
        for model, name in names.items()
    ]
    return markdown([["model", *SAMPLES.values()], *rows])


def split_tables(lines: Lines, columns: Mapping[str, str], largest: bool, covered: bool = False) -> str:
    """Means and deviations over splits of each table."""
    rows = [["table", *columns.values(), *(["cells in the 90 % intervals"] if covered else [])]]
    for table, own in grouped(lines, "table").items():
        means, texts = zip(*((mean(own, key), spread(line[key] for line in own)) for key in columns), strict=True)
        cells = bold(means, texts, largest)
        rows.append([table.replace("_", " "), *cells, *([f"{100 * mean(own, 'covered'):.0f} %"] if covered else [])])
    return markdown(rows)


def binary(lines: Lines) -> str:
    """Nats of binary sets under two priors and two decoders, and under a tree of clusters."""
    words = {"linear": [], "16 hidden": [16]}
    rows = [["", *(f"{decoder}: {prior}" for decoder in words for prior in ("N(0, I)", "learned")), "tree"]]
    for name, own in grouped(lines, "set").items():
        cells = [(hidden, prior) for hidden in words.values() for prior in ("normal", "learned")]
        nats = [mean(having(own, hidden=hidden, prior=prior), "nats") for hidden, prior in cells]
        rows.append([name, *best([*nats, mean(having(own, prior="tree"), "nats")], 3)])
    return markdown(rows)


def evidence(lines: Lines) -> str:
    """How far log Z of each target is from the truth, from three starts."""
    rows = [
        ["target", "start", "within 0.1 nat", "within 2 errors", "beyond 3, silently", "warned", "root mean square",
         "error quoted", "rounds", "s"],
    ]  # fmt: skip
    for line in having(lines, benchmark="evidence"):
        num = line["estimates"]
        rows.append(
            [
                TARGETS[line["target"]], line["start"], f"{line['within_0.1']} of {num}",
                f"{line['within_2_errors']} of {num}", str(line["silently_wrong"]), str(line["warned"]),
                f"{line['root_mean_square']:.3f}", f"{line['mean_error']:.3f}", f"{line['median_rounds']:,.0f}",
                f"{line['median_seconds']:.1f}",
            ]
        )  # fmt: skip
    return markdown(rows)


def swaps(lines: Lines) -> str:
    """Round trips of each target under two schemes, by the number of rungs."""
    own = having(lines, benchmark="swaps")
    rungs = sorted({line["rungs"] for line in own})
    cells = {
        (line["target"], line["rungs"]): f"{line['even_odd']:,.0f} / {line['random']:,.0f} ({line['ratio']:.1f})"
        for line in own
    }
    head = ["round trips, even-odd / random parity", *(f"{num} rungs" for num in rungs)]
    names = dict.fromkeys(line["target"] for line in own)
    return markdown([head, *([TARGETS[name], *(cells[name, num] for num in rungs)] for name in names)])


def samplers(lines: Lines) -> str:
    """Independent draws that would have each sampler's squared error, and the error of its log Z."""
    head = ["target", "method", "effective draws a second", "a 1,000 gradients", "log Z, root mean square"]
    rows = [[*head, "first call, s"]]
    for line in having(lines, benchmark="samplers"):
        error = f"{line['log_z_root_mean_square']:.3f}" if "log_z_root_mean_square" in line else "none"
        rates = (f"{line['per_second']:,.0f}", f"{line['per_1000_gradients']:.2g}")
        rows.append([TARGETS[line["target"]], line["method"], *rates, error, f"{line['seconds_of_first']:.0f}"])
    return markdown(rows)


def ablation(lines: Lines) -> str:
    """Objectives and exchanges of tempered training."""
    rows = [["objective", "exchanges", "decoder evaluations", *ABLATION.values()]]
    groups = grouped(lines, "objective", "exchanges", "num_updates")
    lengths = sorted({line["num_updates"] for line in lines}, reverse=True)
    for objective, exchanges, num_updates in itertools.product(OBJECTIVES, EXCHANGES, lengths):
        if own := groups.get((objective, exchanges, num_updates)):
            cells = [spread(_rounded(line.get(key)) for line in own) for key in ABLATION]
            cost = f"{mean(own, 'decoder_evaluations'):,.0f}"
            rows.append([OBJECTIVES[objective], EXCHANGES[exchanges], cost, *cells])
    return markdown(rows)


def _rounded(value: float | None) -> float | None:
    """To four decimals, since acceptances may be as small as 1e-30."""
    return None if value is None else round(value, 4)


def headline(images: Lines, runs: Lines, tables: Lines, shapes: Lines, chains: Lines) -> str:
    """The README's table: a number a row, which side is better, ours and a rival's."""
    models = ("kaem", "vae_then_100_gaussians")
    short = [having(images, experiment="mnist", model=model, conditions=STAGED) for model in models]
    long = [having(runs, run=run, fit=fit) for run, fit in (("mnist", ""), ("mnist_vae", models[1]))]
    samplers = having(chains, benchmark="samplers", target="two_modes")
    errors = [mean(having(samplers, method=method), "root_mean_square") for method in ("tempered", "numpyro NUTS")]
    gaussians = "100 full Gaussians on the codes of a VAE"
    rows: list[tuple[str, bool, Sequence[float], int, str]] = []
    for which, models_of, rival in (
        ("250 s of one core", short, gaussians), ("60,000 updates", long, f"{gaussians}, 80,000 updates")
    ):  # fmt: skip
        for what, key in (("held-out nats, lower bound", "nats"), ("Frechet distance", "frechet_distance")):
            rows.append((f"MNIST, {which}: {what}", key == "nats", [mean(own, key) for own in models_of], 1, rival))
    divergences = [mean(shapes, key) for key in ("kl", "kl_gaussians_best")]
    rows += [
        ("a checkerboard in the plane: KL to the truth", False, divergences, 3, "the best of Gaussian mixtures"),
        ("twelve tables: mean rank of held-out nats", False, ranks(having(tables, benchmark="densities"))[:2], 2,
         "a neural spline flow"),
        ("two modes in 20 dimensions: error of a mode's share", False, errors, 3, "NUTS of numpyro"),
    ]  # fmt: skip
    head = ["what", "better", "kaem_jax", "rival", "which rival"]
    return markdown(
        [head, *([a, "higher" if up else "lower", *best(x, digits, up), b] for a, up, x, digits, b in rows)]
    )


# The function of each table, and the benchmarks whose lines it takes.
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    **{
        f"{prefix}{name}": (functools.partial(quality, experiment=name, conditions=conditions), ("quality",))
        for prefix, conditions in (("staged_", STAGED), ("", CONDITIONS))
        for name in ("mnist", "svhn", "cifar10")
    },
    "svhn_100": (functools.partial(quality, experiment="svhn", conditions=WIDE), ("quality",)),
    "parts": (parts, ("quality",)),
    **{
        made.__name__: (made, (made.__name__,))
        for made in (ablation, binary, densities, full_length, outliers, samples)
    },
    "nats": (functools.partial(split_tables, columns=NATS, largest=True), ("tables",)),
    "filled": (functools.partial(split_tables, columns=FILLED, largest=False, covered=True), ("tables",)),
    **{own.__name__: (own, ("tempering",)) for own in (evidence, swaps, samplers)},
    "headline": (headline, ("quality", "full_length", "densities", "shapes", "tempering")),
}
