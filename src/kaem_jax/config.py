"""The run configuration: frozen dataclasses with every default, and the checks that refuse a bad one.

Imports nothing but the standard library, so a mistake is reported before anything heavy loads. Experiments edit the
dictionary of `default_dict`; `Config.from_dict` turns it back into dataclasses.
"""

import dataclasses
import difflib
import os
import types
import typing
from dataclasses import field
from typing import Any, Literal

__all__ = [
    "BasisName",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "GroupConfig",
    "LikelihoodConfig",
    "OptimizerConfig",
    "PosteriorConfig",
    "PriorConfig",
    "TrainConfig",
    "check_overrides",
    "default_dict",
]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, what was given and what is allowed."""


BasisName = Literal[
    "b_spline", "chebyshev", "dog", "fourier", "mexican_hat", "morlet", "rbf", "rswaf", "shannon"
]  # fmt: skip
ActivationName = Literal[
    "identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", "selu", "celu", "hard_swish"
]  # fmt: skip


def _bounded(default: Any, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A field with a range: low <= value <= high, or value > above. Applies to each entry of a tuple."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The bank of univariate densities; see `kaem_jax.make_prior`."""

    kind: Literal["comonotone", "mixture", "product"] = "mixture"
    outer: int = _bounded(5, low=1)
    inner: int = _bounded(8, low=1)
    basis: BasisName = "b_spline"
    degree: int = _bounded(3, low=1, high=5)
    reference: Literal["flat", "gaussian", "learnable_gaussian", "lognormal", "uniform"] = "gaussian"
    domain: tuple[float, float] = (-3.0, 3.0)
    grid_size: int = _bounded(20, low=1)
    base_activation: ActivationName | Literal["none"] = "silu"
    coefficient_scale: float = _bounded(0.1, low=0)
    base_scale: float = _bounded(0.1, low=0)
    proportions: Literal["learned", "uniform"] = "uniform"
    parameterization: Literal["centred", "non_centred"] = "centred"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The network from features to data; see `kaem_jax.make_generator`."""

    kind: Literal["kan", "mlp"] = "mlp"
    hidden: tuple[int, ...] = _bounded((128, 128), low=1)
    activation: ActivationName = "silu"
    output: Literal["identity", "sigmoid", "tanh"] = "sigmoid"
    basis: BasisName = "b_spline"
    degree: int = _bounded(3, low=1, high=5)
    grid_size: int = _bounded(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LikelihoodConfig:
    """p(x | z); sigma is the standard deviation of a Gaussian in the units of the data, or its start if learned."""

    kind: Literal["bernoulli", "gaussian"] = "gaussian"
    sigma: float = _bounded(0.3, above=0)
    learn_sigma: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosteriorConfig:
    """How the posterior of the latents is sampled in training."""

    kind: Literal["importance"] = "importance"
    num_samples: int = _bounded(1000, low=2)
    resampling: Literal["multinomial", "residual", "stratified", "systematic"] = "systematic"
    ess_threshold: float = _bounded(0.0, low=0, high=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Adam on one group of parameters: linear warm-up, then constant or cosine to `final_fraction` of the rate."""

    learning_rate: float = _bounded(2e-3, above=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = _bounded(50, low=0)
    final_fraction: float = _bounded(0.02, low=0, high=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Prior and generator (with the likelihood) have their own rates; one global norm clips both."""

    prior: GroupConfig = field(default_factory=GroupConfig)
    generator: GroupConfig = field(default_factory=GroupConfig)
    clip_norm: float = _bounded(10.0, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set and the minibatch."""

    name: Literal["digits"] = "digits"
    batch_size: int = _bounded(128, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run and of the interval between lines of metrics.jsonl, in steps."""

    num_steps: int = _bounded(3000, low=1)
    log_every: int = _bounded(50, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out log-likelihood: proposals at each evaluation, and of the last one, in chunks of `chunk_size`."""

    every_steps: int = _bounded(500, low=1)
    num_samples: int = _bounded(10_000, low=2)
    final_num_samples: int = _bounded(100_000, low=2)
    chunk_size: int = _bounded(1000, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """A checkpoint every so many steps; the newest ones and the best by held-out log-likelihood are kept."""

    every_steps: int = _bounded(500, low=1)
    keep_last: int = _bounded(2, low=1)
    keep_best: int = _bounded(1, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a run."""

    name: str = "kaem"
    seed: int = _bounded(0, low=0, high=2**32 - 1)
    prior: PriorConfig = field(default_factory=PriorConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @classmethod
    def from_dict(cls, values: typing.Mapping[str, Any]) -> "Config":
        """Checks a nested dictionary and builds the configuration.

        Raises:
          ConfigError: a key is unknown or missing, a value has the wrong type or is out of range, or two contradict.
        """
        config = _build(cls, values, "")
        _check_combinations(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The nested dictionary that `from_dict` takes."""
        return dataclasses.asdict(self)


def default_dict() -> dict[str, Any]:
    """All defaults as a nested dictionary, for an experiment to edit."""
    return Config().to_dict()


def check_overrides(arguments: typing.Sequence[str]) -> None:
    """Checks the names in `--config.KEY=VALUE` arguments and that the file after `--config` exists.

    Raises:
      ConfigError: a name is no field (the nearest one is suggested), or there is no such file.
    """
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name.startswith("config."):
            group: Any = Config
            for depth, part in enumerate(parts := name.split(".")[1:]):
                if not dataclasses.is_dataclass(group):
                    raise ConfigError(f"{'.'.join(parts[:depth])} is a single value and has no field {part!r}")
                _check_name(group, part, "".join(f"{p}." for p in parts[:depth]))
                group = typing.get_type_hints(group)[part]
        elif argument.startswith("-") and name == "config":
            path = value if equals else next(iter(arguments[position + 1 :]), "")
            if not os.path.isfile(path.partition(":")[0]):
                raise ConfigError(f"--config {path!r} is not a file; give an experiment, such as experiments/digits.py")


def _check_name(cls: Any, name: str, prefix: str) -> None:
    fields = [f.name for f in dataclasses.fields(cls)]
    if name not in fields:
        near = difflib.get_close_matches(str(name), fields, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed: {', '.join(fields)}"
        raise ConfigError(f"{prefix}{name} is not a field of the config; {hint}")


def _check_combinations(config: Config) -> None:
    for name, domain in (("prior.domain", config.prior.domain), ("generator.domain", config.generator.domain)):
        if not domain[0] < domain[1]:
            raise ConfigError(f"{name}={domain} must be (low, high) with low < high")
    if config.prior.reference == "lognormal" and config.prior.domain[0] <= 0:
        raise ConfigError(
            f"prior.domain={config.prior.domain} must lie above 0 for prior.reference='lognormal', "
            "for instance (0.05, 8.0)"
        )
    if config.prior.kind != "mixture" and config.prior.proportions != "uniform":
        raise ConfigError(
            f"prior.proportions={config.prior.proportions!r} needs prior.kind='mixture'; "
            f"a {config.prior.kind} prior has no proportions: set 'uniform'"
        )
    if config.likelihood.kind == "bernoulli" and config.generator.output != "identity":
        raise ConfigError(
            f"generator.output={config.generator.output!r} contradicts likelihood.kind='bernoulli', "
            "which takes logits: set generator.output='identity'"
        )
    evaluation = config.evaluation
    for name in ("num_samples", "final_num_samples"):
        chunks, rest = divmod(getattr(evaluation, name), evaluation.chunk_size)
        if rest or chunks < 2:
            raise ConfigError(
                f"evaluation.{name}={getattr(evaluation, name)} must be a multiple of evaluation.chunk_size="
                f"{evaluation.chunk_size}, and at least twice as large: the spread of the chunks is the error"
            )
    _check_multiple("evaluation.every_steps", evaluation.every_steps, "train.log_every", config.train.log_every)
    _check_multiple(
        "checkpoint.every_steps", config.checkpoint.every_steps, "evaluation.every_steps", evaluation.every_steps
    )
    for name in ("prior", "generator"):
        group = getattr(config.optimizer, name)
        if group.schedule == "cosine" and group.warmup_steps >= config.train.num_steps:
            raise ConfigError(
                f"optimizer.{name}.warmup_steps={group.warmup_steps} must be below "
                f"train.num_steps={config.train.num_steps}: a cosine schedule has to fit behind the warm-up"
            )


def _check_multiple(name: str, value: int, base_name: str, base: int) -> None:
    if value % base:
        raise ConfigError(f"{name}={value} must be a multiple of {base_name}={base}")


def _build(cls: Any, values: Any, prefix: str) -> Any:
    """Builds dataclass `cls` from a mapping, checking names, types and ranges on the way."""
    where = prefix.rstrip(".") or "config"
    if not hasattr(values, "keys"):
        raise ConfigError(f"{where}={values!r} must be a group of fields")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        _check_name(cls, name, prefix)
    hints = typing.get_type_hints(cls)
    built = {}
    for name, spec in fields.items():
        if name not in values:
            raise ConfigError(f"{prefix}{name} is missing; start from the defaults of kaem_jax.config.default_dict()")
        if dataclasses.is_dataclass(hints[name]):
            built[name] = _build(hints[name], values[name], f"{prefix}{name}.")
        else:
            built[name] = _convert(hints[name], values[name], prefix + name)
            _check_range(spec.metadata, built[name], prefix + name)
    return cls(**built)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the annotated type; an int may stand for a float and a list for a tuple, nothing else is coerced."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and all(typing.get_origin(a) is Literal for a in args):
        origin, args = Literal, tuple(choice for a in args for choice in typing.get_args(a))
    if origin is Literal:
        if value not in args:
            near = difflib.get_close_matches(str(value), args, n=1)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{name}={value!r} is not allowed; allowed: {', '.join(args)}{hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}={value!r} must be a tuple")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise ConfigError(f"{name}={value!r} must have {len(args)} entries")
        return tuple(_convert(arg, entry, name) for arg, entry in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{name}={value!r} must be of type {hint.__name__}")
    return value


def _check_range(metadata: typing.Mapping[str, Any], value: Any, name: str) -> None:
    low, high, above = (metadata.get(key) for key in ("low", "high", "above"))
    for entry in value if isinstance(value, tuple) else (value,):
        if isinstance(entry, float) and not abs(entry) < float("inf"):
            raise ConfigError(f"{name}={value!r} must be finite")
        if low is not None and entry < low:
            raise ConfigError(f"{name}={value!r} must be at least {low}")
        if high is not None and entry > high:
            raise ConfigError(f"{name}={value!r} must be at most {high}")
        if above is not None and not entry > above:
            raise ConfigError(f"{name}={value!r} must be above {above}")
