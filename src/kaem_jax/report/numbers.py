"""The numbers of evaluation.json as a person reads them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Row", "format_number", "name_features", "readable_rows"]

_ERRORS = {  # the values to which each standard error belongs
    "standard_error": ("value", "nats"),
    "bits_standard_error": ("bits_per_dimension", "bits_per_dimension_of_256_levels"),
    "infinity_standard_error": ("infinity",),
    "ms_ssim_generated_standard_error": ("ms_ssim_generated",),
    "ms_ssim_held_out_standard_error": ("ms_ssim_held_out",),
}
_NOT_SHOWN = ("seconds", "features", "share_of_variance_that_data_decide", "of", "is_bound")
# What a lower bound on the likelihood bounds, and from which side.
_BOUNDED = {
    "nats": "at least",
    "nats_per_token": "at most",
    "bits_per_dimension": "at most",
    "bits_per_dimension_of_256_levels": "at most",
}


class Row(NamedTuple):
    """One metric: its name, (name, value) pairs of text, and what they are made from."""

    metric: str
    values: list[tuple[str, str]]
    made_from: str


def readable_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row for each metric, with each error next to its value."""
    rows = []
    for metric, numbers in metrics.items():
        label = metric.replace("_", " ")
        if "reason" in numbers:
            rows.append(Row(label, [], f"left out: {numbers['reason']}"))
            continue
        error_of = {value: error for error, values in _ERRORS.items() for value in values}
        values, settings = [], []
        for name, number in numbers.items():
            shown = name.replace("_", " ")
            if name in _NOT_SHOWN or name in _ERRORS:
                continue
            if name == "count":
                values.append((shown, f"{number} of {numbers['of']}"))
            elif numbers.get("is_bound") and name in _BOUNDED:
                values.append((shown, f"{_BOUNDED[name]} {format_number(number)}"))
            elif isinstance(number, float) and name != "threshold":
                error = numbers.get(error_of.get(name, ""))
                values.append((shown, format_number(number) + (f" \N{PLUS-MINUS SIGN} {error:.2g}" if error else "")))
            else:
                settings.append(f"{shown} {format_number(number)}")
        rows.append(Row(label, values, ", ".join(settings)))
    return rows


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
