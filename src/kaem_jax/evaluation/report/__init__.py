"""Writes one HTML file that shows everything about a run and needs no other file."""

import base64
import importlib.resources
import pathlib
import re
from typing import Any

from kaem_jax.errors import RunError
from kaem_jax.evaluation.report.numbers import format_number, name_features, readable_formula, readable_rows
from kaem_jax.evaluation.report.policy import policy_hash
from kaem_jax.evaluation.report.verdicts import verdict_of_training
from kaem_jax.files import replacing
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.settings import flatten
from kaem_jax.training.log import MetricsFile, held_out_nats

__all__ = ["write_report"]

# Figures in the order of the report: file, heading, what to look for.
_FIGURES = (
    ("curves", "Training", "The held-out log-likelihood should still rise at the end of training, or be constant."),
    ("samples", "Samples", "Draws from the prior and what the decoder makes of them, next to held-out data."),
    ("reconstructions", "Reconstructions", "Posterior means of held-out data, each next to its own datum."),
    (
        "clusters",
        "Clusters",
        "Each row is drawn from one cluster of the prior: what they have in common is what it stands for.",
    ),
    (
        "traversals",
        "What single latents do",
        "One latent moves along its own density, in steps of probability, while the others stay where the posterior of "
        "the first held-out datum has them. The most informative are on top.",
    ),
    (
        "interpolations",
        "Between two data",
        "Straight lines in probability, and great circles of the normal scores; both stay where the prior has mass.",
    ),
    (
        "densities",
        "Learned densities",
        "Those that move the output most, each with the base that it tilts.",
    ),
    (
        "latents",
        "All latents",
        "Above, the share of the output's variance that is left when all other latents are known (they interact where "
        "the sum exceeds 100 %; densities that share a latent have its share each). Below, where each density lies "
        "above (red) or below (blue) its base.",
    ),
    (
        "tempering",
        "The tempered population",
        "Exchanges should be accepted often between all neighbours; a pair near zero is a gap that no chain crosses.",
    ),
)
_TEXTS = (
    ("samples", "Sampled texts", "Draws from the prior, then token by token."),
    ("reconstructions", "Reconstructed texts", "A held-out text, and what its latents alone say most probably."),
    ("clusters", "Texts of each cluster", "What the texts of a cluster have in common is what it stands for."),
)
_NUM_LATENTS = 24  # latents that are shown with pictures


def write_report(folder: RunFolder) -> pathlib.Path:
    """Writes report.html from the files in a run's folder; parts without files are left out.

    Raises:
      RunError: the folder holds no run, or a damaged file.
    """
    import jinja2  # a quarter of a second: only where it is used

    saved = folder.read_config()
    evaluation = folder.read_evaluation()
    latents = folder.read_latents()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kaem_jax.evaluation.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": format_number, "held_out_nats": held_out_nats}
    template = environment.get_template("template.html")
    try:
        page = template.render(_content(folder, saved, evaluation, latents))
    except (jinja2.UndefinedError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder.evaluation}, {folder.latents} or {folder.summary} holds something else than it should ({error}); "
            "delete them, and evaluate again"
        ) from None
    with replacing(folder.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder.report


def _content(
    folder: RunFolder, saved: dict[str, Any], evaluation: dict[str, Any] | None, latents: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the template shows."""
    import markupsafe

    script = (importlib.resources.files(__package__) / "sort.js").read_text("utf-8")
    places = sorted((entry["name"] for entry in latents), key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    rows = MetricsFile.read(folder.metrics)
    fallen = verdict_of_training(rows)
    newest = max((row["step"] for row in rows), default=0)
    trained_to = evaluation.get("trained_to", newest) if evaluation else newest
    return {
        "name": saved["config"]["name"],
        "script": markupsafe.Markup(script),
        "script_hash": markupsafe.Markup(policy_hash(script)),
        "saved": saved,
        "settings": flatten(saved["config"]),
        "summary": folder.read_summary(),
        "step": evaluation and evaluation["step"],
        "is_chosen": bool(evaluation and evaluation.get("chosen_by_these_data")),
        "trained_since": newest if newest > trained_to else None,
        "rows": readable_rows(evaluation["metrics"]) if evaluation else [],
        "features": name_features(evaluation["metrics"]) if evaluation else None,
        "figures": [
            (name, heading, text, fallen if name == "curves" else "", _data_uri(folder.figures / f"{name}.png"))
            for name, heading, text in _FIGURES
            if (folder.figures / f"{name}.png").exists()
        ],
        "texts": [
            (f"{name}_texts", heading, text, folder.texts(name).read_text(encoding="utf-8", errors="replace"))
            for name, heading, text in _TEXTS
            if folder.texts(name).exists()
        ],
        "latents": [
            entry
            | {
                "density": _optional_uri(folder, i, "density"),
                "strip": _optional_uri(folder, i, "strip"),
                "formula": readable_formula(entry.get("closed_form")),
                "place": places.index(entry["name"]),
            }
            for i, entry in enumerate(latents[:_NUM_LATENTS])
        ],
        "num_latents": len(latents),
    }


def _optional_uri(folder: RunFolder, rank: int, what: str) -> str | None:
    path = folder.latent_figure(rank, what)
    return _data_uri(path) if path.exists() else None


def _data_uri(path: pathlib.Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
