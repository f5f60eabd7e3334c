"""Every field of a run's configuration, with its type, its default and its range.

A choice is a union of dataclasses, one for each kind: a field of another kind is refused, not ignored.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any, Literal

from kaem_jax import registry
from kaem_jax.config.combinations import check_combinations
from kaem_jax.config.reading import build, defaults

__all__ = [
    "AnnealedEvaluation",
    "BernoulliConfig",
    "CheckpointConfig",
    "ComonotoneConfig",
    "Config",
    "ConvConfig",
    "DataConfig",
    "EvaluationConfig",
    "GaussianConfig",
    "GeneratorConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "ImportanceConfig",
    "ImportanceEvaluation",
    "KanConfig",
    "LangevinConfig",
    "LikelihoodConfig",
    "MixtureConfig",
    "MlpConfig",
    "NeuralConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PosteriorConfig",
    "PriorConfig",
    "ProductConfig",
    "RegularizationConfig",
    "TemperedConfig",
    "TrainConfig",
    "default_dict",
]

ActivationName = Literal[
    "identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", "selu", "celu", "hard_swish"
]  # fmt: skip
SampleMetric = Literal["copying", "density_coverage", "diversity", "fid", "kid", "precision_recall"]
_OWN_FILES, _PREPARED = ("folder", "npz"), ("celeb_a", "cifar10", "fashion_mnist", "mnist", "svhn_cropped")


def _bounded(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    only: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """A field with a range, low <= value <= high or value > above, which applies to each entry of a tuple.

    `only` names another field of the group and the values of it with which this field is used at all.
    """
    return field(default=default, metadata={"low": low, "high": high, "above": above, "only": only})


def _registered(default: str, names: registry.Registry) -> Any:
    """A field whose value is the name of an entry of `names`."""
    return field(default=default, metadata={"registry": names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prior:
    kind: str
    outer: int = _bounded(5, low=1)
    base_activation: ActivationName | Literal["none"] = "silu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bank(_Prior):
    inner: int = _bounded(8, low=1)
    basis: str = _registered("b_spline", registry.BASES)
    degree: int = _bounded(3, low=1, high=5)  # of families that have one
    reference: Literal["flat", "gaussian", "learnable_gaussian", "lognormal", "uniform"] = "gaussian"
    domain: tuple[float, float] = (-3.0, 3.0)
    grid_size: int = _bounded(20, low=1)
    coefficient_scale: float = _bounded(0.1, low=0)
    base_scale: float = _bounded(0.1, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductConfig(_Bank):
    """Independent latents [Q, P]; see `kaem_jax.make_prior`."""

    kind: Literal["product"] = "product"
    parameterization: Literal["centred", "non_centred"] = "centred"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureConfig(_Bank):
    """Latents [Q], each a mixture of P densities; see `kaem_jax.make_prior`."""

    kind: Literal["mixture"] = "mixture"
    parameterization: Literal["centred", "non_centred"] = "centred"
    proportions: Literal["learned", "uniform"] = "uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComonotoneConfig(_Bank):
    """One uniform for each p feeds all q; see `kaem_jax.make_prior`."""

    kind: Literal["comonotone"] = "comonotone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralConfig(_Prior):
    """A multilayer perceptron as energy, the baseline; see `kaem_jax.make_prior`."""

    kind: Literal["neural"] = "neural"
    hidden: tuple[int, ...] = _bounded((200, 200), low=1)
    num_steps: int = _bounded(60, low=1)
    step_size: float = _bounded(0.08, above=0)


PriorConfig = ComonotoneConfig | MixtureConfig | NeuralConfig | ProductConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generator:
    kind: str
    hidden: tuple[int, ...] = _bounded((128, 128), low=1)
    output: Literal["identity", "sigmoid", "tanh"] = "sigmoid"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig(_Generator):
    """A multilayer perceptron; see `kaem_jax.make_generator`."""

    kind: Literal["mlp"] = "mlp"
    activation: ActivationName = "silu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KanConfig(_Generator):
    """A Kolmogorov-Arnold network; see `kaem_jax.make_generator`."""

    kind: Literal["kan"] = "kan"
    basis: str = _registered("b_spline", registry.BASES)
    degree: int = _bounded(3, low=1, high=5)  # of families that have one
    grid_size: int = _bounded(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvConfig(_Generator):
    """Transposed convolutions; see `kaem_jax.make_generator`."""

    kind: Literal["conv"] = "conv"
    activation: ActivationName = "silu"
    group_norm: bool = False
    concatenate_latent: bool = False
    dtype: Literal["bfloat16", "float32"] = "float32"


GeneratorConfig = ConvConfig | KanConfig | MlpConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """N(x; output, sigma^2 I); sigma is in the units of the data, or the start of what is learned."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: float = _bounded(0.3, above=0)
    learn_sigma: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class BernoulliConfig:
    """Independent Bernoulli values whose logits are the generator's output."""

    kind: Literal["bernoulli"] = "bernoulli"


LikelihoodConfig = BernoulliConfig | GaussianConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Posterior:
    kind: str
    points: Literal["random", "sobol"] = "random"  # of draws from the prior: proposals, or starts of chains
    # the normaliser by quadrature, or its gradient by prior draws (the only way for a neural prior)
    negative_phase: Literal["exact", "sampled"] = "exact"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceConfig(_Posterior):
    """S proposals from the prior, shared by the minibatch; see `kaem_jax.make_sampler`."""

    kind: Literal["importance"] = "importance"
    num_samples: int = _bounded(1000, low=2)
    resampling: Literal["multinomial", "residual", "stratified", "systematic"] = "systematic"
    ess_threshold: float = _bounded(0.0, low=0, high=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chains(_Posterior):
    kernel: str = _registered("ula", registry.KERNELS)
    num_steps: int = _bounded(40, low=1)
    step_size: float = _bounded(0.01, above=0)
    num_chains: int = _bounded(1, low=1)
    persistent: bool = False  # chains go on where they were when their datum was last seen
    adapt_steps: int = _bounded(0, low=0)  # training steps in which the step size moves towards acceptance 0.574


@dataclasses.dataclass(frozen=True, kw_only=True)
class LangevinConfig(_Chains):
    """Chains for each datum; see `kaem_jax.make_sampler`."""

    kind: Literal["langevin"] = "langevin"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemperedConfig(_Chains):
    """A replica of each chain on every rung of a ladder; see `kaem_jax.make_sampler`."""

    kind: Literal["tempered"] = "tempered"
    num_temperatures: int = _bounded(5, low=1)
    steps_per_round: int = _bounded(5, low=1)  # steps between exchanges of rungs
    swap: Literal["even_odd", "none", "random"] = "even_odd"
    refresh: bool = True  # the rung at the prior takes exact draws
    ladder: Literal["adaptive", "annealed", "power"] = "power"
    exponent: float = _bounded(3.0, above=0)  # of the power ladder, or where the other two start
    final_exponent: float = _bounded(1.0, above=0, only={"ladder": ("annealed",)})
    num_cycles: int = _bounded(1, low=1, only={"ladder": ("annealed",)})
    # share of the way to its target that an adaptive ladder goes in a step
    ladder_damping: float = _bounded(0.05, above=0, high=1, only={"ladder": ("adaptive",)})
    # posterior is the gradient of log p(x); the paper's detached sums over rungs are biased (BUILD_NOTES.md)
    objective: Literal["posterior", "steppingstone", "thermodynamic"] = "posterior"


PosteriorConfig = ImportanceConfig | LangevinConfig | TemperedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridUpdateConfig:
    """Moves the breakpoints of prior and KAN generator at `first_step`, then at intervals that grow by `growth`."""

    first_step: int = _bounded(0, low=0)  # 0: never
    growth: float = _bounded(2.0, low=1)
    source: Literal["posterior", "prior"] = "posterior"
    uniform_fraction: float = _bounded(0.5, low=0, high=1)
    max_total_variation: float = _bounded(0.02, above=0, high=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """Weights of penalties, in nats per datum; see `kaem_jax.kan.regularizers` and `objective.penalty`."""

    l1: float = _bounded(0.0, low=0)
    entropy: float = _bounded(0.0, low=0)
    coefficient: float = _bounded(0.0, low=0)
    difference: float = _bounded(0.0, low=0)
    dirichlet: float = _bounded(0.0, low=0)
    proportion_entropy: float = _bounded(0.0, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Adam on one group of parameters: linear warm-up, then constant or cosine to `final_fraction` of the rate."""

    learning_rate: float = _bounded(2e-3, above=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = _bounded(50, low=0)
    final_fraction: float = _bounded(0.02, low=0, high=1, only={"schedule": ("cosine",)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Prior and generator (with the likelihood) have their own rates; one global norm clips both."""

    prior: GroupConfig = field(default_factory=GroupConfig)
    generator: GroupConfig = field(default_factory=GroupConfig)
    clip_norm: float = _bounded(10.0, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set, where it is, what of it is used, and the minibatch."""

    name: Literal[
        "celeb_a", "cifar10", "digits", "fashion_mnist", "folder", "mnist", "npz", "svhn_cropped"
    ] = "digits"  # fmt: skip
    path: str = _bounded("", only={"name": _OWN_FILES})
    # where tensorflow_datasets prepared data; empty: TFDS_DATA_DIR, or ~/tensorflow_datasets
    dir: str = _bounded("", only={"name": _PREPARED})
    image_size: int = _bounded(64, low=1, only={"name": ("celeb_a",)})  # of centre crops
    # device: all pixels in device memory; host: decoded in host memory; disk: decoded batch by batch. auto is device up
    # to 2 GiB, else host.
    storage: Literal["auto", "device", "disk", "host"] = "auto"
    held_out: Literal["test", "validation"] = "test"
    validation_size: int = _bounded(0, low=0)  # of the training split, held out instead of the test split
    # of `npz` and `folder` without a test part
    test_fraction: float = _bounded(0.1, above=0, high=0.9, only={"name": _OWN_FILES})
    num_train: int = _bounded(0, low=0)  # the first so many; 0 is all
    num_held_out: int = _bounded(0, low=0)
    batch_size: int = _bounded(128, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How devices are laid out: along the minibatch and along the rungs; -1 for one of them takes what is left."""

    data: int = _bounded(-1, low=-1)
    temp: int = _bounded(1, low=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run and of the interval between lines of metrics.jsonl, in steps."""

    num_steps: int = _bounded(3000, low=1)
    log_every: int = _bounded(50, low=1)
    steps_per_call: int = _bounded(1, low=1)  # updates scanned in one dispatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluation:
    method: str
    every_steps: int = _bounded(500, low=1)
    # reconstructions are posterior means of the first held-out data, by the sampler of training with chains this long
    num_reconstructions: int = _bounded(200, low=1)
    posterior_steps: int = _bounded(100, low=1)
    # samples against held-out images while training goes on; 0: only by `kaem evaluate`
    samples_every_steps: int = _bounded(0, low=0)
    sample_metrics: tuple[SampleMetric, ...] = ("fid", "kid")
    num_images: int = _bounded(2000, low=20)
    features: str = "classifier"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceEvaluation(_Evaluation):
    """Held-out log-likelihood from proposals of the prior, in chunks; `final` ones are of the last evaluation."""

    method: Literal["importance"] = "importance"
    points: Literal["random", "sobol"] = "random"
    num_samples: int = _bounded(10_000, low=2)
    final_num_samples: int = _bounded(100_000, low=2)
    chunk_size: int = _bounded(1000, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedEvaluation(_Evaluation):
    """Held-out log-likelihood by annealed importance sampling, so many data at once."""

    method: Literal["ais"] = "ais"
    num_chains: int = _bounded(4, low=2)
    num_temperatures: int = _bounded(50, low=2)
    final_num_temperatures: int = _bounded(500, low=2)
    batch_size: int = _bounded(100, low=1)


EvaluationConfig = AnnealedEvaluation | ImportanceEvaluation


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
    prior: PriorConfig = field(default_factory=MixtureConfig)
    generator: GeneratorConfig = field(default_factory=MlpConfig)
    likelihood: LikelihoodConfig = field(default_factory=GaussianConfig)
    posterior: PosteriorConfig = field(default_factory=ImportanceConfig)
    grid_update: GridUpdateConfig = field(default_factory=GridUpdateConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=ImportanceEvaluation)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overridden: Collection[str] = ()) -> "Config":
        """Checks a nested dictionary and builds the configuration.

        Args:
          values: as `default_dict` gives it, edited.
          overridden: names such as "posterior.num_steps" that a user gave by hand: refused where the choices made
            elsewhere leave them unused, even with their default.

        Raises:
          ConfigError: a key is unknown or missing, a value has the wrong type or is out of range, a field is set that
            the choices made leave unused, or two fields contradict each other.
        """
        config = build((cls,), values, "", overridden)
        check_combinations(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """A nested dictionary that `from_dict` takes, of the fields in use."""
        return dataclasses.asdict(self)


def default_dict() -> dict[str, Any]:
    """All defaults as a nested dictionary, those of every kind included, for an experiment to edit."""
    return defaults(Config())
