"""Writes one HTML file that shows everything about a run and needs no other file."""

import base64
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from kaem_jax.app.log import effort_of, evaluated_during_training, held_out_nats, read_metrics, standard_error_of
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.files.writing import replacing
from kaem_jax.settings import flatten

# In the order of the report: file, heading, what to look for.
_FIGURES = (
    ("curves", "Training", "The held-out log-likelihood should still rise at the end of training, or be constant."),
    ("samples", "Samples", "Draws from the prior and what the decoder makes of them, next to held-out data."),
    ("reconstructions", "Reconstructions", "Posterior means of held-out data, each next to its own datum."),
    ("clusters", "Clusters", "Each row is drawn from one cluster of the prior: what they share is what it stands for."),
    ("traversals", "What single latents do", "One latent moves along its own density, in steps of probability, while "
     "the others stay where the posterior of the first held-out datum has them. The most informative are on top."),
    ("interpolations", "Between two data", "Straight lines in probability, which stay where the prior has mass."),
    ("densities", "Learned densities", "Those that move the output most, each with the base that it tilts."),
)  # fmt: skip
_TEXTS = (
    ("samples", "Sampled texts", "Draws from the prior, then token by token."),
    ("reconstructions", "Reconstructed texts", "A held-out text, and the most probable one given its latents alone."),
    ("clusters", "Texts of each cluster", "What the texts of a cluster have in common is what it stands for."),
)
_NUM_LATENTS = 24
_ERRORS = {  # other errors are called NAME_standard_error
    **dict.fromkeys(("value", "nats", "ratio"), "standard_error"),
    **dict.fromkeys(("bits_per_dimension", "bits_per_dimension_of_256_levels"), "bits_standard_error"),
}
_AT_LEAST = ("nats", "barrier", "rungs_that_suit")  # if `is_bound`
_AT_MOST = ("nats_per_token", "bits_per_dimension", "bits_per_dimension_of_256_levels", "divergence_from_prior")
_NOT_SHOWN = (
    "seconds", "share_of_variance_that_data_decide", "standard_error_of_shares", "of", "is_bound",
    "num_bounds", "effort_id", "verdict",
)  # fmt: skip


def write_report(folder: RunFolder) -> pathlib.Path:
    """Writes report.html from the files in a run's folder; parts without files are left out."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kaem_jax.app.evaluation.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": format_number, "held_out_nats": held_out_nats}
    page = environment.get_template("template.html").render(_content(folder))
    with replacing(folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder.report


def _content(folder: RunFolder) -> dict[str, Any]:
    saved, evaluation, latents = folder.read_config(), folder.read_evaluation(), folder.read_json(folder.latents) or []
    rows = read_metrics(folder.metrics)
    newest = max((row["step"] for row in rows), default=0)
    figures = [(folder.figures / f"{name}.png", name, heading, text) for name, heading, text in _FIGURES]
    texts = [(folder.texts(name), f"{name}_texts", heading, text) for name, heading, text in _TEXTS]
    return {
        "saved": saved,
        "settings": flatten(saved["config"]),
        "summary": folder.read_summary(),
        "evaluation": evaluation,
        "trained_since": newest if evaluation and newest > evaluation["trained_to"] else None,
        "rows": readable_rows(evaluation["metrics"]) if evaluation else [],
        "verdict_of_training": verdict_of_training(rows),
        "figures": [(*about, base64.b64encode(p.read_bytes()).decode()) for p, *about in figures if p.exists()],
        "texts": [(*about, p.read_text("utf-8", errors="replace")) for p, *about in texts if p.exists()],
        "latents": latents[:_NUM_LATENTS],
        "num_latents": len(latents),
    }


def verdict_of_training(rows: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the held-out curve in the rows of metrics.jsonl, if it fell after its peak.

    Compares rows with the effort of the newest one. A fall of an estimate must exceed two standard errors; for bounds
    every fall counts.
    """
    name = "eval/log_likelihood"
    found = evaluated_during_training(rows)
    same = [row for row in found if effort_of(row) == effort_of(found[-1])]
    if not same:
        return ""
    best, last = max(same, key=lambda row: row[name]), same[-1]
    fall = best[name] - last[name]
    if fall <= 2 * math.hypot(standard_error_of(best), standard_error_of(last)):
        return ""
    or_looser = ", or the bound became looser" if last["eval/is_bound"] else ""
    return (
        f"It was highest at step {best['step']:,} ({best[name]:.2f} nats) and has fallen by {fall:.2f} nats since: the "
        f"model overfits its training data{or_looser}. --checkpoint best takes the best step that was kept."
    )


class Row(NamedTuple):
    """One metric: its name, its numbers as (name, text), what they are made from, and what they mean."""

    metric: str
    values: list[tuple[str, str]]
    made_from: str
    verdict: str


def readable_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row for each metric, with each error next to its value."""
    rows = []
    for metric, numbers in metrics.items():
        if "reason" in numbers:
            rows.append(Row(metric.replace("_", " "), [], f"left out: {numbers['reason']}", ""))
            continue
        values, settings = [], []
        for name, number in numbers.items():
            if name in _NOT_SHOWN or name.endswith("standard_error"):
                continue
            text = format_number(number)
            if name == "count":
                text += f" of {numbers['of']}"
            elif numbers.get("is_bound") and name in (*_AT_LEAST, *_AT_MOST):
                text = f"{'at least' if name in _AT_LEAST else 'at most'} {text}"
            elif not isinstance(number, float) or name == "threshold":
                settings.append(f"{name.replace('_', ' ')} {text}")
                continue
            elif error := numbers.get(_ERRORS.get(name, f"{name}_standard_error")):
                text += f" \N{PLUS-MINUS SIGN} {error:.2g}"
            values.append((name.replace("_", " "), text))
        rows.append(Row(metric.replace("_", " "), values, ", ".join(settings), numbers.get("verdict", "")))
    return rows


def format_number(value: Any) -> str:
    """Formats a float with at least four digits and an integer with separators; other values with `str`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if 100 <= abs(value) < 1e6 else f"{value:.4g}"
