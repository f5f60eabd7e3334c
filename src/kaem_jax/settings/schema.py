"""Every field of a run's configuration, with its type, its default and its range.

A choice is a union of dataclasses, one for each kind: a field of another kind is refused, not ignored.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any, Literal

from kaem_jax.settings.combinations import check_combinations, check_overridden
from kaem_jax.settings.evaluation import AutoEvaluation, EvaluationConfig
from kaem_jax.settings.fields import bounded, only_for
from kaem_jax.settings.model import (
    EncoderConfig,
    GaussianConfig,
    GeneratorConfig,
    LikelihoodConfig,
    MixtureConfig,
    MlpConfig,
    NoEncoderConfig,
    PriorConfig,
)
from kaem_jax.settings.names import OWN_FILES, PREPARED, SHIPPED_TABLES, TEXTS
from kaem_jax.settings.posterior import ImportanceConfig, PosteriorConfig
from kaem_jax.settings.reading import build, defaults

__all__ = [
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RegularizationConfig",
    "TrainConfig",
    "default_dict",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridUpdateConfig:
    """Moves the breakpoints of prior and KAN generator at `first_step`, then at intervals that grow by `growth`."""

    first_step: int = bounded(0, low=0)  # 0: never
    growth: float = bounded(2.0, low=1)
    source: Literal["posterior", "prior"] = "posterior"
    uniform_fraction: float = bounded(0.5, low=0, high=1)
    max_total_variation: float = bounded(0.02, above=0, high=1)  # of a density, from what it was
    max_layer_change: float = bounded(0.05, above=0, high=1)  # of a KAN layer, in deviations of its output


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """Weights of penalties, in nats per datum; see `kaem_jax.kan.regularizers` and `objective.penalty`."""

    l1: float = bounded(0.0, low=0)
    entropy: float = bounded(0.0, low=0)
    coefficient: float = bounded(0.0, low=0)
    difference: float = bounded(0.0, low=0)
    dirichlet: float = bounded(0.0, low=0)
    proportion_entropy: float = bounded(0.0, low=0)
    ngrams: float = bounded(0.0, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Adam on one group of parameters: linear warm-up, then constant or cosine to `final_fraction` of the rate.

    With a rate of 0 the group stays at its start: a prior N(0, I), for instance, of a variational autoencoder.
    """

    learning_rate: float = bounded(2e-3, low=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = bounded(50, low=0)
    final_fraction: float = bounded(0.02, low=0, high=1, only={"schedule": ("cosine",)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Prior and generator (with the likelihood) have their own rates; both are clipped by one global norm."""

    prior: GroupConfig = field(default_factory=GroupConfig)
    generator: GroupConfig = field(default_factory=GroupConfig)
    clip_norm: float = bounded(10.0, above=0)
    weight_decay: float = bounded(0.0, low=0)  # of matrices of the networks, in units of the learning rate (AdamW)
    # of an exponential moving average of parameters (not of an annealed scale), which is then evaluated; 0: none
    average_decay: float = bounded(0.0, low=0, high=0.999999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set, where it is, which part of it is used, and the size of a minibatch."""

    name: Literal[
        "breast_cancer", "celeb_a", "checkerboard", "cifar10", "digits", "eight_gaussians", "fashion_mnist", "field",
        "folder", "mnist", "moons", "npz", "rings", "sms_spam", "svhn_cropped", "table", "text", "wine"
    ] = "digits"  # fmt: skip
    path: str = bounded("", only={"name": OWN_FILES})
    # where tensorflow_datasets prepared data; empty: TFDS_DATA_DIR, or ~/tensorflow_datasets
    dir: str = bounded("", only={"name": PREPARED})
    # side length of the squares to which images are cropped and scaled; 0: as they are, and 64 for celeb_a
    image_size: int = bounded(0, low=0, high=4096, only={"name": ("celeb_a", "folder")})
    # an image of a folder that is not square is cropped at its longer side, or padded with black at its shorter
    fit: Literal["crop", "pad"] = only_for("crop", {"name": ("folder",)})
    channels: Literal["auto", "grey", "rgb"] = only_for("auto", {"name": ("folder",)})  # auto: as the first image
    # device: all pixels in device memory; host: decoded in host memory; disk: decoded batch by batch. auto is device up
    # to 2 GiB, else host.
    storage: Literal["auto", "device", "disk", "host"] = "auto"
    held_out: Literal["test", "validation"] = "test"
    validation_size: int = bounded(0, low=0)  # examples of the training split, held out instead of the test split
    # share of the data that becomes the test part, for data without one
    test_fraction: float = bounded(0.1, above=0, high=0.9, only={"name": (*OWN_FILES, *SHIPPED_TABLES)})
    split_seed: int = bounded(0, low=0, only={"name": (*OWN_FILES, *SHIPPED_TABLES)})  # of that part's choice
    # columns of a table that are modelled (none: all but the label), or arrays of a file of fields that become channels
    columns: tuple[str, ...] = only_for((), {"name": ("field", "table", *SHIPPED_TABLES)})
    label: str = only_for("", {"name": ("table",)})  # a column of classes, which the model does not see
    # of columns of numbers: standardised, or then raised to the powers that make them most like a normal distribution
    transform: Literal["power", "standard"] = only_for("standard", {"name": ("table", *SHIPPED_TABLES)})
    level: Literal["character", "word"] = only_for("character", {"name": TEXTS})  # what a token of a text is
    length: int = bounded(160, low=2, high=65536, only={"name": TEXTS})  # tokens of a text; longer ones are cut
    num_train: int = bounded(0, low=0)  # 0: all; else the first, or random ones of tables and of users' own data
    num_held_out: int = bounded(0, low=0)
    batch_size: int = bounded(128, low=1)
    flip: bool = False  # mirrors each training image left to right with probability 1/2
    transpose: bool = False  # swaps height and width of each training image or field with probability 1/2
    labels: bool = False  # ties the clusters of a clustered prior to the classes of the data


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Numbers of devices along the minibatch and along the rungs; -1 for one of them takes all that are left."""

    data: int = bounded(-1, low=-1)
    temp: int = bounded(1, low=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run and of the interval between lines of metrics.jsonl, in steps."""

    num_steps: int = bounded(3000, low=1)
    log_every: int = bounded(50, low=1)
    steps_per_call: int = bounded(1, low=1)  # updates scanned in one dispatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """A checkpoint every `every_steps` steps; the newest ones and the best by held-out log-likelihood are kept."""

    every_steps: int = bounded(500, low=1)
    keep_last: int = bounded(2, low=1)
    keep_best: int = bounded(1, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a run."""

    name: str = "kaem"
    seed: int = bounded(0, low=0, high=2**32 - 1)
    prior: PriorConfig = field(default_factory=MixtureConfig)
    generator: GeneratorConfig = field(default_factory=MlpConfig)
    likelihood: LikelihoodConfig = field(default_factory=GaussianConfig)
    encoder: EncoderConfig = field(default_factory=NoEncoderConfig)
    posterior: PosteriorConfig = field(default_factory=ImportanceConfig)
    grid_update: GridUpdateConfig = field(default_factory=GridUpdateConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=AutoEvaluation)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overridden: Collection[str] = ()) -> "Config":
        """Checks a nested dictionary and builds the configuration.

        Args:
          values: the dictionary of `default_dict`, edited.
          overridden: names such as "posterior.num_steps" that a user set on the command line. They are refused if the
            other choices leave them unused, even at their default.

        Raises:
          ConfigError: a key is unknown or missing, a value has the wrong type or is out of range, a field is set that
            the other choices leave unused, or two fields contradict each other.
        """
        config = build((cls,), values, "", overridden)
        check_combinations(config)
        check_overridden(config, overridden)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The fields in use, as a nested dictionary that `from_dict` accepts."""
        return dataclasses.asdict(self)


def default_dict() -> dict[str, Any]:
    """All defaults, those of every kind included, as a nested dictionary that an experiment edits."""
    return defaults(Config())
