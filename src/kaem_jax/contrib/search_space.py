"""What `kaem tune` may search: settings with the values that they may take, and what is refused before any trial."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from kaem_jax.settings import Config, ConfigError, default_dict, settle
from kaem_jax.settings.combinations import check_schedules
from kaem_jax.settings.saved import flatten

__all__ = ["Dimension", "changed", "check_search", "read_dimension"]

_OF_MINIBATCHES = ("data.batch_size", "data.flip", "data.transpose")
_NOT_LEARNED = ("checkpoint.", "evaluation.", "parallel.", "train.log_every", "train.steps_per_call", "seed", "name")
_UNITS = ("likelihood.kind", "likelihood.levels")  # nats of densities, and of probabilities of so many levels


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A setting and the values that it may take.

    Attributes:
      name: such as "optimizer.prior.learning_rate".
      kind: `int`, `float`, `log` (a float, uniform in its logarithm) or `choice`.
      values: (low, high), or the choices.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: Any) -> Any:
        """A value, by the trial's sampler."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.values)
        if self.kind == "int":
            return trial.suggest_int(self.name, *self.values)
        return trial.suggest_float(self.name, *self.values, log=self.kind == "log")


def read_dimension(text: str) -> Dimension:
    """Reads NAME=int:LOW:HIGH, NAME=float:LOW:HIGH, NAME=log:LOW:HIGH or NAME=choice:A:B:...

    Raises:
      ConfigError: the text is none of these.
    """
    name, _, rest = text.partition("=")
    kind, *parts = rest.split(":")
    problem = f"--search {text!r} must be NAME=int:LOW:HIGH, NAME=float:LOW:HIGH, NAME=log:LOW:HIGH or NAME=choice:A:B"
    if not name or kind not in ("int", "float", "log", "choice") or len(parts) < 2 or "" in parts:
        raise ConfigError(problem)
    if kind == "choice":
        return Dimension(name, kind, tuple(_plain(part) for part in parts))
    try:
        low, high = (int(part) if kind == "int" else float(part) for part in parts)
    except ValueError:
        raise ConfigError(problem) from None
    if not low < high or (kind == "log" and low <= 0):
        raise ConfigError(f"{problem}, with LOW < HIGH{', both above 0' if kind == 'log' else ''}")
    return Dimension(name, kind, (low, high))


def _plain(text: str) -> Any:
    """A choice as JSON reads it, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def changed(config: Config, values: Mapping[str, Any], overridden: Sequence[str] = ()) -> Config:
    """The configuration with other values; where a kind is another one, with the defaults of its settings.

    Raises:
      ConfigError: it describes no run, or one of the `overridden` names would do nothing in it.
    """
    every = flatten(default_dict())
    settings = flatten(config.to_dict())
    changed = traverse_util.unflatten_dict({**every, **settings, **values}, sep=".")
    return Config.from_dict(settle(changed, list(values), Config), overridden)


def check_search(config: Config, dimensions: Sequence[Dimension], objective: str) -> None:
    """Refuses, before any trial, names that are no settings, and values at both ends that cannot be run."""
    if config.data.held_out != "validation":
        raise ConfigError(
            "tuning needs a validation split: give --config.data.held_out=validation and "
            "--config.data.validation_size=N; the test split is looked at once, at the end"
        )
    evaluation = config.evaluation
    if objective != "nats" and not (
        0 < evaluation.samples_every_steps <= config.train.num_steps and objective in evaluation.sample_metrics
    ):
        raise ConfigError(
            f"--objective {objective} needs distances of samples in training: set evaluation.samples_every_steps, from "
            f"1 to train.num_steps={config.train.num_steps}, and {objective!r} among evaluation.sample_metrics"
        )
    if not dimensions:
        raise ConfigError("--search is missing; give for instance --search optimizer.prior.learning_rate=log:1e-4:1e-2")
    settings = flatten(config.to_dict())
    names = [dimension.name for dimension in dimensions]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--search {repeated[0]} is given twice; give each setting one space")
    for dimension in dimensions:
        if dimension.name not in settings:
            raise ConfigError(f"--search {dimension.name}: there is no such setting in this experiment")
        if dimension.name.startswith("data.") and dimension.name not in _OF_MINIBATCHES:
            raise ConfigError(
                f"--search {dimension.name}: numbers of other data cannot be compared; of data, search only "
                f"{' or '.join(_OF_MINIBATCHES)}"
            )
        if dimension.name.startswith(_NOT_LEARNED):
            raise ConfigError(
                f"--search {dimension.name}: it changes how a model is judged or kept, or its luck, not how it learns"
            )
        if objective == "nats" and dimension.name in _UNITS:
            raise ConfigError(
                f"--search {dimension.name}: nats of different likelihoods cannot be compared; take "
                "--objective fid or kid"
            )
        if objective == "nats" and _is_scale_of_pixels(dimension.name, config):
            raise ConfigError(
                f"--search {dimension.name}: nats of pixels with different scales cannot be compared; take "
                "--objective fid or kid"
            )
        for value in dimension.values:  # both ends, or every choice
            check_schedules(changed(config, {dimension.name: value}))
    _check_in_use(config, dimensions)


def _is_scale_of_pixels(name: str, config: Config) -> bool:
    """Whether the setting decides the scale of a density of pixels, whose nats have no upper limit."""
    likelihood: Any = config.likelihood
    is_scale = name == "likelihood.learn_sigma" or (name == "likelihood.sigma" and not likelihood.learn_sigma)
    return is_scale and likelihood.kind == "gaussian" and config.data.name != "field"


def _check_in_use(config: Config, dimensions: Sequence[Dimension]) -> None:
    """Refuses a setting that does nothing at both ends of all spaces, nor with any choice of another setting."""
    first, last = ({dimension.name: dimension.values[place] for dimension in dimensions} for place in (0, -1))
    chosen = [first | {d.name: value} for d in dimensions if d.kind == "choice" for value in d.values]
    possible = [values for values in (first, last, *chosen) if _problem(config, values) is None]
    for dimension in dimensions:
        problems = [_problem(config, values, [dimension.name]) for values in possible]
        if problems and None not in problems:
            raise ConfigError(f"--search {dimension.name}: {problems[0]}")


def _problem(config: Config, values: Mapping[str, Any], overridden: Sequence[str] = ()) -> ConfigError | None:
    """Why `changed` refuses these; None if it does not."""
    try:
        changed(config, values, overridden)
    except ConfigError as error:
        return error
    return None
