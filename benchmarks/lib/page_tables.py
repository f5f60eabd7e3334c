"""The tables that `pages.py` writes, made of the JSON lines of benchmarks."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lib.models import NAMES
from lib.page_cells import Lines, best, bold, has, markdown, mean, of_part, spread

QUALITY = {
    "num_steps": "updates", "fit_seconds": "fit, s", "nats": "nats, at least", "frechet_distance": "distance",
    "precision": "precision", "recall": "recall",
}  # fmt: skip
CONDITIONS, STAGED = "200 s, test", "250 s, test"
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
NATS = {
    "kaem": "KAEM", "density": "KAEM without a decoder", "gaussian": "Gaussian", "mixture": "mixture (BIC)",
    "kernel": "kernel density",
}  # fmt: skip
FILLED = {"rmse": "KAEM", "rmse_iterative": "IterativeImputer", "rmse_neighbours": "KNNImputer"}
TARGETS = {
    "two_modes": "two modes, 20 dimensions", "funnel": "funnel, 10", "banana": "banana, 2", "grid": "25 modes, 2",
    "student": "Student's t, 50",
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


def quality(lines: Lines, experiment: str, conditions: str = CONDITIONS) -> str:
    """Models by seeds, of one set of images."""
    lines = [line for line in lines if has(line, experiment=experiment, conditions=conditions)]
    rows = [["prior", "seeds", *QUALITY.values()]]
    for model in NAMES:
        own = {line["seed"]: line for line in lines if line["model"] == model}
        if own:
            cells = [spread(line.get(key) for line in own.values()) for key in QUALITY]
            rows.append([NAMES[model], str(len(own)), *cells])
    return markdown(rows)


def parts(lines: Lines) -> str:
    """What each part of the clustered prior is worth on MNIST, in means over seeds."""
    lines = [line for line in lines if has(line, experiment="mnist", conditions=CONDITIONS)]
    rows = [["part", "from", "to", "nats", "distance"]]
    for part, models in PARTS.items():
        before, after = ([line for line in lines if line["model"] == model] for model in models)
        (nats, distance), (more, less) = (
            [mean(own, key) for key in ("nats", "frechet_distance")] for own in (before, after)
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
    own = of_part(lines, "outliers")
    areas = best([mean(own, key) for key in OUTLIERS if key != "false_alarms"], 1)
    tables = len({line["table"] for line in own})
    head = ["tables, runs", *OUTLIERS.values()]
    return markdown([head, [f"{tables}, {len(own)}", *areas, f"{100 * mean(own, 'false_alarms'):.1f}"]])


def densities(lines: Lines) -> str:
    """Nats of each table, means over seeds; the last row has mean ranks."""
    own = of_part(lines, "densities")
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


def evidence(lines: Lines) -> str:
    """How far log Z of each target is from 0, from two starts."""
    rows = [["target", "start", "within 0.1 nat", "within 2 errors", "root mean square", "error quoted", "rounds", "s"]]
    for line in of_part(lines, "evidence"):
        num = line["estimates"]
        rows.append(
            [
                TARGETS[line["target"]], line["start"], f"{line['within_0.1']} of {num}",
                f"{line['within_2_errors']} of {num}", f"{line['root_mean_square']:.3f}", f"{line['mean_error']:.3f}",
                f"{line['median_rounds']:,.0f}", f"{line['median_seconds']:.0f}",
            ]
        )  # fmt: skip
    return markdown(rows)


def swaps(lines: Lines) -> str:
    """Round trips of each target under two schemes, by the number of rungs."""
    own = of_part(lines, "swaps")
    rungs = sorted({line["rungs"] for line in own})
    cells = {
        (line["target"], line["rungs"]): f"{line['even_odd']:,.0f} / {line['random']:,.0f} ({line['ratio']:.1f})"
        for line in own
    }
    head = ["round trips, even-odd / random parity", *(f"{num} rungs" for num in rungs)]
    return markdown([head, *([words, *(cells[name, num] for num in rungs)] for name, words in TARGETS.items())])


def samplers(lines: Lines) -> str:
    """What each sampler says of each target, a value for each key."""
    rows = [["target", "method", "error of log Z, nats", "share of an event: found; exact", "effective draws a second"]]
    own = of_part(lines, "rivals")
    for target, method in dict.fromkeys((line["target"], line["method"]) for line in own):
        runs = [line for line in own if has(line, target=target, method=method)]
        errors = ", ".join(f"{line['log_z']:+.3f}" for line in runs if "log_z" in line) or "none"
        shares = ", ".join(f"{line['share']:.3f}" for line in runs)
        rate = f"{mean(runs, 'effective_per_second'):,.0f}"
        rows.append([TARGETS[target], method, errors, f"{shares}; {runs[0]['probability']:.3f}", rate])
    return markdown(rows)


def ablation(lines: Lines) -> str:
    """Objectives and exchanges of tempered training."""
    rows = [["objective", "exchanges", "decoder evaluations", *ABLATION.values()]]
    cases = itertools.product(OBJECTIVES, EXCHANGES, sorted({line["num_updates"] for line in lines}, reverse=True))
    for objective, exchanges, num_updates in cases:
        own = [line for line in lines if has(line, objective=objective, exchanges=exchanges, num_updates=num_updates)]
        if own:
            cells = [spread(_rounded(line.get(key)) for line in own) for key in ABLATION]
            cost = f"{mean(own, 'decoder_evaluations'):,.0f}"
            rows.append([OBJECTIVES[objective], EXCHANGES[exchanges], cost, *cells])
    return markdown(rows)


def _rounded(value: float | None) -> float | None:
    """To four decimals, since acceptances may be as small as 1e-30."""
    return None if value is None else round(value, 4)


def _nats_and_distances(models: Sequence[Lines]) -> str:
    """Means of each model, the best of them bold."""
    nats = best([mean(own, "nats") for own in models], 1)
    distances = best([mean(own, "frechet_distance") for own in models], 1, largest=False)
    return "; ".join(", ".join(pair) for pair in zip(nats, distances, strict=True))


def headline(images: Lines, runs: Lines, tables: Lines, shapes: Lines, chains: Lines) -> str:
    """The README's table: what, against whom, figures."""
    models = ("kaem", "vae_then_10_gaussians", "vae_then_100_gaussians")
    short = [[line for line in images if has(line, experiment="mnist", model=of, conditions=STAGED)] for of in models]
    cases = (("mnist", ""), ("mnist_vae", ""), ("mnist_vae", "vae_then_100_gaussians"))
    long = [[line for line in runs if has(line, run=run, fit=fit)] for run, fit in cases]
    fits = "a VAE, then 10 or 100 full Gaussians on its codes"
    rivals = "a VAE after 80,000; the VAE, then 100 full Gaussians on its codes"
    ours, *others = ranks(of_part(tables, "densities"))
    found = {
        method: ", ".join(f"{line['share']:.3f}" for line in chains if has(line, target="two_modes", method=method))
        for method in ("tempered", "numpyro NUTS")
    }
    return markdown(
        [
            ["what", "against", "figure"],
            ["MNIST, 250 s of one core: nats, at least; Frechet distance", fits, _nats_and_distances(short)],
            ["the same after 60,000 updates, one seed", rivals, _nats_and_distances(long)],
            ["a checkerboard in the plane: KL to the truth", "scikit-learn's best Gaussian mixture of up to 100 "
             "components", f"**{spread(line['kl'] for line in shapes)}**; "
             f"{spread(line['kl_gaussians_best'] for line in shapes)}"],
            ["twelve tables, defaults: mean rank of held-out nats", "a neural spline flow; Gaussian mixtures; a kernel "
             "density", f"**{ours:.2f}**; {'; '.join(f'{rank:.2f}' for rank in others)}"],
            ["two modes in 20 dimensions: share of the larger one, truth 0.700", "NUTS of numpyro",
             f"**{found['tempered']}**; {found['numpyro NUTS']}"],
        ]
    )  # fmt: skip


# The function of each table, and the benchmarks whose lines it takes.
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    **{
        f"staged_{name}": (functools.partial(quality, experiment=name, conditions=STAGED), ("quality",))
        for name in ("mnist", "svhn", "cifar10")
    },
    "mnist": (functools.partial(quality, experiment="mnist"), ("quality",)),
    "svhn": (functools.partial(quality, experiment="svhn"), ("quality",)),
    "svhn_100": (
        functools.partial(quality, experiment="svhn", conditions="200 s, prior.num_latents=100"),
        ("quality",),
    ),
    "cifar10": (functools.partial(quality, experiment="cifar10"), ("quality",)),
    "parts": (parts, ("quality",)),
    "full_length": (full_length, ("full_length",)),
    "outliers": (outliers, ("outliers",)),
    "densities": (densities, ("densities",)),
    "samples": (samples, ("samples",)),
    "nats": (functools.partial(split_tables, columns=NATS, largest=True), ("tables",)),
    "filled": (functools.partial(split_tables, columns=FILLED, largest=False, covered=True), ("tables",)),
    "binary": (binary, ("binary",)),
    "evidence": (evidence, ("tempering",)),
    "swaps": (swaps, ("tempering",)),
    "samplers": (samplers, ("tempering",)),
    "ablation": (ablation, ("ablation",)),
    "headline": (headline, ("quality", "full_length", "densities", "shapes", "tempering")),
}
