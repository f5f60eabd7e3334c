"""How the held-out log-likelihood in a row of metrics.jsonl is read."""

from collections.abc import Mapping
from typing import Any

__all__ = ["effort_of", "is_bound", "is_final", "standard_error_of"]

_UNITS = {"eval/num_samples": "proposals", "eval/num_temperatures": "temperatures"}


def is_final(row: Mapping[str, Any]) -> bool:
    """Whether the row is that of the final evaluation, which may have more effort than those during training."""
    return "eval/log_likelihood" in row and "train/loss" not in row


def is_bound(row: Mapping[str, Any]) -> bool:
    """Whether the number is a lower bound only.

    Rows of earlier versions do not say which it is: their numbers had an ESS of a few, hence were bounds.
    """
    return row.get("eval/is_bound", True)


def standard_error_of(row: Mapping[str, Any]) -> float:
    """Its standard error in nats; 0 for a bound, whose error says nothing."""
    return 0.0 if is_bound(row) else float(row["eval/log_likelihood_standard_error"])


def effort_of(row: Mapping[str, Any]) -> str:
    """What the estimate was made of, such as "1,000 proposals". Only numbers of one effort can be compared."""
    return ", ".join(f"{row[name]:,} {unit}" for name, unit in _UNITS.items() if name in row)
