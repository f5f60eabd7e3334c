"""What an evaluator is, and how its numbers are named in a log."""

from collections.abc import Mapping
from typing import Any, Protocol

from kaem_jax.evaluation.metrics.comparison import SAMPLE_METRICS
from kaem_jax.runs.run import Run

__all__ = ["METRICS", "TEXT_METRICS", "VALUE_METRICS", "Evaluator", "Numbers", "scalars_of"]

VALUE_METRICS = ("two_sample", "energy_distance", "spectrum", "darcy")  # of tables and fields
TEXT_METRICS = ("latent_use", "distinct")
METRICS = (
    "log_likelihood", "reconstruction", "active_latents", "clusters", "mixing", *SAMPLE_METRICS, "class_samples",
    *VALUE_METRICS, *TEXT_METRICS,
)  # fmt: skip

Numbers = dict[str, dict[str, Any]]  # metric -> its numbers, and the settings that reproduce them

# Of these two metrics only the numbers listed here are logged, by names that are older than evaluators. Numbers of
# other metrics are called METRIC_NAME.
_LOGGED = {
    "log_likelihood": {
        "nats": "log_likelihood",
        "standard_error": "log_likelihood_standard_error",
        "ess": "ess",
        "ess_min": "ess_min",
        "is_bound": "is_bound",
        "num_bounds": "num_bounds",
        "num_samples": "num_samples",
        "num_temperatures": "num_temperatures",
        "num_gradients": "num_gradients",
    },
    "reconstruction": {"mean_squared_error": "reconstruction_error", "share_of_tokens": "reconstructed_tokens"},
}


class Evaluator(Protocol):
    """Judges a model by some metrics. It holds its data and keys, so running it twice gives the same numbers."""

    def run(self, run: Run) -> Numbers:
        """For each metric, its numbers and the settings that reproduce them, or the `reason` why there are none.

        An empty dictionary where the metric belongs to another kind of data.
        """
        ...


def scalars_of(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of a log row, named "eval/NAME". Times and settings are left out, except the likelihood's effort."""
    row = {}
    for metric, values in numbers.items():
        logged = _LOGGED.get(metric)
        for name, value in values.items():
            if logged is not None and name in logged:
                row[f"eval/{logged[name]}"] = value
            elif logged is None and isinstance(value, float) and name != "seconds":
                row[f"eval/{metric}_{name}"] = value
    return row
