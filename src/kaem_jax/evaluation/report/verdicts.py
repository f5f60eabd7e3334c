"""What a number means, in a sentence beside it: what to trust, what to doubt."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kaem_jax.training.held_out_rows import effort_of, is_bound, is_final, standard_error_of

__all__ = ["verdict_of", "verdict_of_training"]

_STRAIGHT = 0.9  # R^2 above which the line of an extrapolation is believed
_MIXED = 1.1  # R-hat
_ENOUGH = 40  # effective proposals or rounds: a bound of so many is one for another reason
_USED = 1.0  # nats that latents must be worth
_DATA_OF_EACH = 5  # with so many data for each cluster, chance leaves few of the clusters that are used without any
_OF_FIVE_FOLDS = 2.13  # standard errors from five values that a mean exceeds by chance once in twenty times (Student)


def verdict_of(metric: str, numbers: Mapping[str, Any]) -> str:
    """A sentence on the numbers of one metric of evaluation.json; empty where there is nothing to say."""
    return _VERDICTS[metric](numbers) if metric in _VERDICTS and "reason" not in numbers else ""


def verdict_of_training(rows: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the held-out curve in the rows of metrics.jsonl, if it fell after its peak.

    Rows whose numbers were made as the newest one are compared; that of the final evaluation is none of the curve.

    Estimates count as fallen if the fall is larger than two standard errors; bounds, by the numbers themselves.
    """
    name = "eval/log_likelihood"
    found = [row for row in rows if row.get(name) is not None and not is_final(row)]
    same = [row for row in found if effort_of(row) == effort_of(found[-1])]
    if len(same) < 2:
        return ""
    best, last = max(same, key=lambda row: row[name]), same[-1]
    fall = best[name] - last[name]
    if fall <= 2 * math.hypot(standard_error_of(best), standard_error_of(last)):
        return ""
    or_looser = ", or the bound became looser" if is_bound(last) else ""
    return (
        f"It was highest at step {best['step']:,} ({best[name]:.2f} nats) and has fallen by {fall:.2f} nats since: the "
        f"model learns its training data by heart{or_looser}. --checkpoint best takes the best step that was kept."
    )


def _likelihood(numbers: Mapping[str, Any]) -> str:
    count = numbers.get("num_chains", numbers.get("num_samples"))
    of = f" of {count:,}" if count and "num_annealed" not in numbers else ""  # proposals of some data, chains of others
    if numbers.get("is_bound", True) and numbers.get("ess_min", 0) >= max(_ENOUGH, 0.05 * (count or 0)):
        return f"a bound whatever its ESS ({numbers['ess']:.3g}{of}): by its method, or since its proposal has one mode"
    if numbers.get("is_bound", True):
        return f"a bound: ESS {numbers['ess']:.3g}{of}; the true value is better, nobody knows by how much"
    few = f"; of {num:,} data only a bound" if (num := numbers.get("num_bounds", 0)) else ""
    return f"an estimate: ESS {numbers['ess']:.3g}{of}{few}"


def _distance(numbers: Mapping[str, Any], least_straight: float = _STRAIGHT) -> str:
    yardstick = numbers.get("value_of_training_images")
    sentences = [] if yardstick is None else [f"the same number of training images is at {yardstick:.3g}"]
    return "; ".join([*sentences, *filter(None, [_trust(numbers, least_straight)])])


def _trust(numbers: Mapping[str, Any], least_straight: float) -> str:
    if numbers.get("points") == "sobol":
        return "no limit and no error: Sobol points are not independent"
    if "infinity" not in numbers:
        return "no limit of many samples: too few rows for these features"
    if numbers["r_squared"] < least_straight:
        return f"the limit does not hold: its line explains {100 * max(numbers['r_squared'], 0):.0f} % of the changes"
    return ""


def _copying(numbers: Mapping[str, Any]) -> str:
    if "standard_error" not in numbers:
        return "by an earlier version, which measured another ratio: evaluate again"
    if numbers["ratio"] < 1 - 2 * numbers["standard_error"]:
        return "samples lie nearer to training data than to held-out data: some may be copies"
    return "no sign of copies"


def _active(numbers: Mapping[str, Any]) -> str:
    idle = numbers["of"] - numbers["count"]
    return f"{idle} latents are not seen to depend on the datum: fewer may be enough" if idle else ""


def _mixing(numbers: Mapping[str, Any]) -> str:
    if numbers["r_hat"] is None or not numbers["r_hat"] < math.inf:  # neither is a number in JSON
        return "the chains of most data never moved, so nothing is known of their mixing"
    if numbers["r_hat"] < _MIXED:
        return "chains from different starts agree for most data"
    return "chains from different starts do not agree: these chains have not found the whole posterior"


def _two_sample(numbers: Mapping[str, Any]) -> str:
    if numbers["value"] - 0.5 <= _OF_FIVE_FOLDS * numbers["standard_error"]:  # an area below 0.5 is worse than guesses
        return "samples and held-out data cannot be told apart"
    return "samples can be told from held-out data"


def _spectrum(numbers: Mapping[str, Any]) -> str:
    yardstick = numbers.get("mean_log_ratio_of_training_fields")
    return "" if yardstick is None else f"as many training fields have {yardstick:.3g}"


def _darcy(numbers: Mapping[str, Any]) -> str:
    least, most = numbers["relative_l2_held_out"], numbers["relative_l2_of_other_coefficients"]
    if least > most / 2:
        return "held-out pairs are no solutions of this equation themselves"
    share = (numbers["relative_l2"] - least) / (most - least)
    return f"samples are {100 * share:.0f} % of the way from true pairs to pairs that do not belong together"


def _latent_use(numbers: Mapping[str, Any]) -> str:
    names = ("divergence_from_prior", "cost_of_other_latents")
    if any(numbers[name] + 2 * numbers.get(f"{name}_standard_error", 0) < _USED for name in names):
        return "the decoder hardly uses its latents"
    if any(numbers[name] - 2 * numbers.get(f"{name}_standard_error", 0) < _USED for name in names):
        return "too few data to tell whether the decoder uses its latents"
    if numbers.get("is_bound"):
        return "other latents cost nats, so texts say something of theirs; how much, a bound does not tell"
    return "latents carry what texts say"


def _clusters(numbers: Mapping[str, Any]) -> str:
    if numbers["num_data"] < _DATA_OF_EACH * numbers["clusters"]:
        return "too few data to tell how many clusters are used: their number comes out too low"
    if numbers["effective_number"] < 0.5 * numbers["clusters"]:
        return "more than half of the clusters are hardly used: fewer would be enough"
    return ""


_VERDICTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "log_likelihood": _likelihood,
    "fid": _distance,
    "kid": functools.partial(_distance, least_straight=-math.inf),  # it has no bias, so its line has no slope
    "copying": _copying,
    "active_latents": _active,
    "mixing": _mixing,
    "two_sample": _two_sample,
    "spectrum": _spectrum,
    "darcy": _darcy,
    "latent_use": _latent_use,
    "clusters": _clusters,
}
