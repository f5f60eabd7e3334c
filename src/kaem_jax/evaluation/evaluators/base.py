"""The protocol of evaluators, and the names of their numbers in a log."""

from collections.abc import Mapping
from typing import Any, Protocol

from kaem_jax.runs.run import Run

__all__ = ["Evaluator", "Numbers", "scalars_of"]

Numbers = dict[str, dict[str, Any]]  # metric -> its numbers, and the settings that reproduce them

# These two metrics log only these numbers, as "eval/NAME". Other metrics log all floats, as "eval/METRIC_NAME".
_LOGGED = {
    "log_likelihood": {
        "nats": "log_likelihood",
        "standard_error": "log_likelihood_standard_error",
        **{name: name for name in ("ess", "ess_min", "is_bound", "num_bounds", "effort_id")},
        **{name: name for name in ("num_data", "num_samples", "num_chains", "num_temperatures", "num_gradients")},
    },
    "reconstruction": {"mean_squared_error": "reconstruction_error", "share_of_tokens": "reconstructed_tokens"},
}


class Evaluator(Protocol):
    """Evaluates a model by some metrics. It holds its data and keys, so running it twice gives the same numbers."""

    def run(self, run: Run) -> Numbers:
        """For each metric, its numbers and the settings that reproduce them, or the `reason` why there are none.

        An empty dictionary if the metric is for another kind of data.
        """


def scalars_of(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of a log row. Settings are left out, except the likelihood's effort."""
    row = {}
    for metric, values in numbers.items():
        for name, value in values.items():
            if metric not in _LOGGED and isinstance(value, float):
                row[f"eval/{metric}_{name}"] = value
            elif name in _LOGGED.get(metric, ()):
                row[f"eval/{_LOGGED[metric][name]}"] = value
    return row
