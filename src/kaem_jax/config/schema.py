"""Every field of a run's configuration, with its type, its default and its range."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from kaem_jax.config.combinations import check_combinations
from kaem_jax.config.reading import build

__all__ = [
    "BasisName",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "LikelihoodConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PosteriorConfig",
    "PriorConfig",
    "RegularizationConfig",
    "TrainConfig",
    "default_dict",
]

BasisName = Literal[
    "b_spline", "chebyshev", "dog", "fourier", "mexican_hat", "morlet", "rbf", "rswaf", "shannon"
]  # fmt: skip
ActivationName = Literal[
    "identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", "selu", "celu", "hard_swish"
]  # fmt: skip


SampleMetric = Literal["copying", "density_coverage", "diversity", "fid", "kid", "precision_recall"]


def _bounded(default: Any, low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A field with a range: low <= value <= high, or value > above. Applies to each entry of a tuple."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The bank of univariate densities; see `kaem_jax.make_prior`."""

    kind: Literal["comonotone", "mixture", "neural", "product"] = "mixture"
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
    hidden: tuple[int, ...] = _bounded((200, 200), low=1)
    num_steps: int = _bounded(60, low=1)
    step_size: float = _bounded(0.08, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The network from features to data; see `kaem_jax.make_generator`."""

    kind: Literal["conv", "kan", "mlp"] = "mlp"
    hidden: tuple[int, ...] = _bounded((128, 128), low=1)
    activation: ActivationName = "silu"
    output: Literal["identity", "sigmoid", "tanh"] = "sigmoid"
    basis: BasisName = "b_spline"
    degree: int = _bounded(3, low=1, high=5)
    grid_size: int = _bounded(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)
    group_norm: bool = False
    concatenate_latent: bool = False
    dtype: Literal["bfloat16", "float32"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LikelihoodConfig:
    """p(x | z); sigma is the standard deviation of a Gaussian in the units of the data, or its start if learned."""

    kind: Literal["bernoulli", "gaussian"] = "gaussian"
    sigma: float = _bounded(0.3, above=0)
    learn_sigma: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosteriorConfig:
    """How the posterior of the latents is sampled in training."""

    kind: Literal["importance", "langevin", "tempered"] = "importance"
    # importance: S proposals from the prior, shared by the minibatch
    num_samples: int = _bounded(1000, low=2)
    points: Literal["random", "sobol"] = "random"
    resampling: Literal["multinomial", "residual", "stratified", "systematic"] = "systematic"
    ess_threshold: float = _bounded(0.0, low=0, high=1)
    # langevin, tempered: chains for each datum, from prior draws or from where they were when the datum was last seen
    kernel: Literal["mala", "pcnl", "ula"] = "ula"
    num_steps: int = _bounded(40, low=1)
    step_size: float = _bounded(0.01, above=0)
    num_chains: int = _bounded(1, low=1)
    persistent: bool = False
    adapt_steps: int = _bounded(0, low=0)  # training steps in which the step size moves towards acceptance 0.574
    # tempered: a replica of each chain on every rung of a ladder, which exchange rungs every steps_per_round steps
    num_temperatures: int = _bounded(5, low=1)
    steps_per_round: int = _bounded(5, low=1)
    swap: Literal["even_odd", "none", "random"] = "even_odd"
    refresh: bool = True  # the rung at the prior takes exact draws
    ladder: Literal["adaptive", "annealed", "power"] = "power"
    exponent: float = _bounded(3.0, above=0)  # of the power ladder, or where the annealed one starts
    final_exponent: float = _bounded(1.0, above=0)
    num_cycles: int = _bounded(1, low=1)
    ladder_damping: float = _bounded(0.05, above=0, high=1)  # share of the way that an adaptive ladder goes in a step
    # posterior is the gradient of log p(x); the paper's detached sums over rungs are biased (BUILD_NOTES.md)
    objective: Literal["posterior", "steppingstone", "thermodynamic"] = "posterior"
    # all: the normaliser by quadrature, or its gradient by prior draws (the only way for a neural prior)
    negative_phase: Literal["exact", "sampled"] = "exact"


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
    final_fraction: float = _bounded(0.02, low=0, high=1)


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
    path: str = ""  # of `npz` and `folder`
    dir: str = ""  # of what tensorflow_datasets prepared; empty: TFDS_DATA_DIR, or ~/tensorflow_datasets
    image_size: int = _bounded(64, low=1)  # of celeb_a's centre crops
    # device: all pixels in device memory; host: decoded in host memory; disk: decoded batch by batch. auto is device up
    # to 2 GiB, else host.
    storage: Literal["auto", "device", "disk", "host"] = "auto"
    held_out: Literal["test", "validation"] = "test"
    validation_size: int = _bounded(0, low=0)  # of the training split, held out instead of the test split
    test_fraction: float = _bounded(0.1, above=0, high=0.9)  # of `npz` and `folder` without a test part
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
class EvaluationConfig:
    """Held-out log-likelihood: what each evaluation may cost, and the last one.

    Reconstructions are posterior means of the first `num_reconstructions` held-out data, by the posterior of training
    with `posterior_steps` Langevin steps.
    """

    every_steps: int = _bounded(500, low=1)
    method: Literal["ais", "importance"] = "importance"
    # importance: proposals from the prior, in chunks
    points: Literal["random", "sobol"] = "random"
    num_samples: int = _bounded(10_000, low=2)
    final_num_samples: int = _bounded(100_000, low=2)
    chunk_size: int = _bounded(1000, low=1)
    # ais: annealed importance sampling, chains for each datum through so many temperatures, so many data at once
    num_chains: int = _bounded(4, low=2)
    num_temperatures: int = _bounded(50, low=2)
    final_num_temperatures: int = _bounded(500, low=2)
    batch_size: int = _bounded(100, low=1)
    num_reconstructions: int = _bounded(200, low=1)
    posterior_steps: int = _bounded(100, low=1)
    # samples against held-out images while training goes on; 0: only by `python -m kaem_jax.evaluate`
    samples_every_steps: int = _bounded(0, low=0)
    sample_metrics: tuple[SampleMetric, ...] = ("fid", "kid")
    num_images: int = _bounded(2000, low=20)
    features: str = "classifier"


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
    grid_update: GridUpdateConfig = field(default_factory=GridUpdateConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Checks a nested dictionary and builds the configuration.

        Raises:
          ConfigError: a key is unknown or missing, a value has the wrong type or is out of range, or two contradict.
        """
        config = build(cls, values, "")
        check_combinations(config)
        return config

    @property
    def evaluation_posterior(self) -> PosteriorConfig:
        """The posterior of training, its chains `evaluation.posterior_steps` long."""
        steps = max(self.evaluation.posterior_steps, self.posterior.steps_per_round)
        return dataclasses.replace(self.posterior, num_steps=steps)

    def to_dict(self) -> dict[str, Any]:
        """The nested dictionary that `from_dict` takes."""
        return dataclasses.asdict(self)


def default_dict() -> dict[str, Any]:
    """All defaults as a nested dictionary, for an experiment to edit."""
    return Config().to_dict()
