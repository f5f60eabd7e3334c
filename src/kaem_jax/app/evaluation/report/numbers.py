"""The numbers of evaluation.json as a person reads them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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
