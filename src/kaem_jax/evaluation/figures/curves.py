"""Curves over training, and diagnostics of a tempered population."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from kaem_jax.evaluation.figures.canvas import save
from kaem_jax.training.held_out_rows import effort_of, standard_error_of

__all__ = ["plot_bars", "plot_curves", "plot_tempering"]


def plot_curves(path: pathlib.Path, rows: list[dict[str, Any]], loss_name: str) -> None:
    """Loss, ESS and held-out log-likelihood over the steps of a metrics file.

    Args:
      path: PNG file to write.
      rows: of the metrics file.
      loss_name: what the loss is, in nats per datum.
    """
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, sampler, held_out = figure.subplots(1, 3)
    _curve(loss, rows, "train/loss", f"training loss\n({loss_name}, nats per datum)")
    if any("train/ess" in row for row in rows):
        _curve(sampler, rows, "train/ess", "training ESS\n(mean over the batch)")
        sampler.set_yscale("log")
        sampler.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        sampler.yaxis.set_major_formatter(ScalarFormatter())
        sampler.yaxis.set_minor_formatter(NullFormatter())
    else:
        _curve(sampler, rows, "train/log_likelihood", "log p(x | z)\n(at posterior draws, nats per datum)")
    evaluated = [row for row in rows if row.get("eval/log_likelihood") is not None]
    by_effort: dict[str, list[dict[str, Any]]] = {}
    for row in evaluated:
        by_effort.setdefault(effort_of(row), []).append(row)
    for i, (effort, chosen) in enumerate(by_effort.items()):
        held_out.errorbar(
            [row["step"] for row in chosen],
            [row["eval/log_likelihood"] for row in chosen],
            yerr=[2 * standard_error_of(row) for row in chosen],
            marker="o", markersize=3, color=f"C{i + 1}", label=effort,
        )  # fmt: skip
    if evaluated:
        held_out.legend(fontsize=7, frameon=False)
    held_out.set_title(
        "held-out log-likelihood (nats per datum,\n+- 2 standard errors; without: a lower bound)", fontsize=9
    )
    for axes in (loss, sampler, held_out):
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    save(figure, path)


def plot_bars(path: pathlib.Path, labels: list[str], values: list[float], title: str) -> None:
    """Horizontal bars, the first label on top."""
    figure = Figure(figsize=(7, 1 + 0.35 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.barh(labels, values)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    save(figure, path)


def _curve(axes: Axes, rows: list[dict[str, Any]], name: str, title: str) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        steps, values = np.array(points).T
        axes.plot(steps, values, color="C0", alpha=0.35, linewidth=1)
        width = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color="C0")
    axes.set_title(title, fontsize=9)


def plot_tempering(
    path: pathlib.Path,
    betas: np.ndarray,
    acceptance: np.ndarray,
    swap_acceptance: np.ndarray,
    log_likelihood: np.ndarray,
    starts_at_prior: bool,
) -> None:
    """How a tempered population moves: its ladder, its exchanges, and the likelihood on each rung.

    Args:
      path: PNG file to write.
      betas: [T] from 0 to 1.
      acceptance: [T] acceptance probability of the moves on each rung.
      swap_acceptance: [T-1] acceptance probability of exchanges between each pair of neighbours.
      log_likelihood: [T] mean untempered log p(x | z) on each rung, nats.
      starts_at_prior: whether the path leads from p(z) to the posterior: thermodynamic integration then has this curve
        as its integrand.
    """
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    ladder, swaps, integrand = figure.subplots(1, 3)
    rungs = np.arange(len(betas))
    ladder.plot(rungs, betas, "o-", color="C0", label="inverse temperature beta")
    ladder.plot(rungs, acceptance, "s--", color="C1", label="acceptance of moves")
    ladder.legend(fontsize=7, frameon=False)
    ladder.set_title("the ladder", fontsize=9)
    ladder.xaxis.set_major_locator(MaxNLocator(integer=True))
    ladder.set_xlabel("rung", fontsize=8)
    swaps.bar(np.arange(len(swap_acceptance)), swap_acceptance, color="C2")
    swaps.set_xticks(np.arange(len(swap_acceptance)), [f"{i}-{i + 1}" for i in range(len(swap_acceptance))])
    swaps.set_ylim(0, 1)
    swaps.set_title("acceptance of exchanges\n(low: a gap that chains do not cross)", fontsize=9)
    swaps.set_xlabel("pair of rungs", fontsize=8)
    integrand.plot(betas, log_likelihood, "o-", color="C3")
    meaning = "; the area is the log-evidence" if starts_at_prior else ""
    integrand.set_title(f"mean log p(x | z) by beta\n(nats{meaning})", fontsize=9)
    integrand.set_xlabel("beta", fontsize=8)
    for axes in (ladder, swaps, integrand):
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    save(figure, path)
