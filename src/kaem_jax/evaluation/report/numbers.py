"""The numbers of evaluation.json as a person reads them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kaem_jax.evaluation.report.verdicts import verdict_of

__all__ = ["Row", "Value", "format_number", "name_features", "readable_formula", "readable_rows"]

_ERRORS = {  # the values to which each standard error belongs
    "standard_error": ("value", "nats", "ratio"),
    "bits_standard_error": ("bits_per_dimension", "bits_per_dimension_of_256_levels"),
    "infinity_standard_error": ("infinity",),
    "ms_ssim_generated_standard_error": ("ms_ssim_generated",),
    "ms_ssim_held_out_standard_error": ("ms_ssim_held_out",),
    "divergence_from_prior_standard_error": ("divergence_from_prior",),
    "cost_of_other_latents_standard_error": ("cost_of_other_latents",),
}
_NOT_SHOWN = (
    "seconds", "features", "share_of_variance_that_data_decide", "standard_error_of_shares", "of", "is_bound",
    "num_bounds",
)  # fmt: skip
# What is bounded where `is_bound` says so, and from which side.
_BOUNDED = {
    "barrier": "at least",
    "divergence_from_prior": "at most",
    "rungs_that_suit": "at least",
    "nats": "at least",
    "nats_per_token": "at most",
    "bits_per_dimension": "at most",
    "bits_per_dimension_of_256_levels": "at most",
}


_SHORT, _EXACT = 24, 0.02  # nodes of a formula and misplaced probability, up to which it tells a reader something
_UP, _DOWN = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"
_BETTER = {  # where a better model has more, or less; numbers that say neither have no arrow
    **dict.fromkeys(("nats", "precision", "recall", "density", "coverage", "share_of_tokens"), _UP),
    **dict.fromkeys(("accuracy", "accuracy_of_worst_class", "adjusted_mutual_information"), _UP),
    **dict.fromkeys(("share_of_data_below_1.1", "ess", "ess_min"), _UP),
    **dict.fromkeys(("bits_per_dimension", "bits_per_dimension_of_256_levels", "nats_per_token"), _DOWN),
    **dict.fromkeys(("mean_squared_error", "relative_l2", "value", "infinity", "r_hat"), _DOWN),
}


_BEST_WITHIN = ("two_sample",)  # 0.5 is the best area, and less is chance


class Value(NamedTuple):
    """A number: its name, its text, and an arrow in the direction of better models, if there is one."""

    name: str
    text: str
    arrow: str


class Row(NamedTuple):
    """One metric: its name, its numbers, what they are made from, and what they mean."""

    metric: str
    values: list[Value]
    made_from: str
    verdict: str


def readable_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row for each metric, with each error next to its value."""
    rows = []
    for metric, numbers in metrics.items():
        label = metric.replace("_", " ")
        if "reason" in numbers:
            rows.append(Row(label, [], f"left out: {numbers['reason']}", ""))
            continue
        error_of = {value: error for error, values in _ERRORS.items() for value in values}
        values, settings = [], []
        for name, number in numbers.items():
            shown, arrow = name.replace("_", " "), "" if metric in _BEST_WITHIN else _BETTER.get(name, "")
            if name in _NOT_SHOWN or name in _ERRORS:
                continue
            if name == "count":
                values.append(Value(shown, f"{number} of {numbers['of']}", arrow))
            elif numbers.get("is_bound") and name in _BOUNDED:
                values.append(Value(shown, f"{_BOUNDED[name]} {format_number(number)}", arrow))
            elif isinstance(number, float) and name != "threshold":
                error = numbers.get(error_of.get(name, ""))
                text = format_number(number) + (f" \N{PLUS-MINUS SIGN} {error:.2g}" if error else "")
                values.append(Value(shown, text, arrow))
            else:
                settings.append(f"{shown} {format_number(number)}")
        rows.append(Row(label, values, ", ".join(settings), verdict_of(metric, numbers)))
    return rows


def readable_formula(formula: dict[str, Any] | None) -> dict[str, Any] | None:
    """The `closed_form` of an entry of latents.json if it is short and true enough to be an insight, else None."""
    if formula is None or formula["complexity"] > _SHORT or formula["total_variation"] > _EXACT:
        return None
    return formula


def name_features(metrics: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The features in which distances were measured; by metric if evaluations of one step chose different ones."""
    named = {metric: numbers["features"] for metric, numbers in metrics.items() if "features" in numbers}
    if len(set(named.values())) > 1:
        return "; ".join(f"{metric}: {features}" for metric, features in named.items())
    return next(iter(named.values()), None)


def format_number(value: Any) -> str:
    """Four digits or more of a float, separators in a large integer, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if 100 <= abs(value) < 1e6 else f"{value:.4g}"
