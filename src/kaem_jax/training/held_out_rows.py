"""Reads held-out log-likelihoods from the rows of metrics.jsonl."""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["describe_effort", "effort_of", "estimates_of", "is_final", "standard_error_of"]

_UNITS = {
    "eval/num_data": "data",
    "eval/num_samples": "proposals",
    "eval/num_chains": "chains",
    "eval/num_temperatures": "temperatures",
}


def is_final(row: Mapping[str, Any]) -> bool:
    """Whether the row is from the final evaluation, whose effort may be higher than during training."""
    return bool(row.get("eval/is_final"))


def estimates_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, tuple[Any, ...]]]:
    """Maps each step to its held-out nats per datum during training and their effort; see `effort_of`."""
    name = "eval/log_likelihood"
    of_training = (row for row in rows if row.get(name) is not None and not is_final(row))
    return {row["step"]: (row[name], effort_of(row)) for row in of_training}


def standard_error_of(row: Mapping[str, Any]) -> float:
    """Standard error of the row's log-likelihood in nats; 0 for a bound, whose standard error is meaningless."""
    return 0.0 if row["eval/is_bound"] else float(row["eval/log_likelihood_standard_error"])


def effort_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The effort of an estimate: its settings (`effort_id`) and sizes. Only estimates of equal effort are comparable.

    The settings are the estimator with its method and budget, and its proposal.
    """
    return tuple(row.get(name) for name in ("eval/effort_id", *_UNITS))


def describe_effort(row: Mapping[str, Any]) -> str:
    """The sizes behind the estimate in words, such as "1,000 proposals"."""
    return ", ".join(f"{row[name]:,} {unit}" for name, unit in _UNITS.items() if name in row)
